"""Who has what: disease -> patient -> video -> findings -> severity, and the S/F ratio.

Fixed from the literature first, and never tuned to what a network scores on it. Nuisance (device, gain, depth, body
habitus, frame rate, breathing) is drawn per patient and does not depend on disease or severity, apart from what
geometry forces: an A-line needs room for twice the depth of the pleura.
"""

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri, softmax

from lusbio.errors import LusbioError
from lusbio.simulation import constants as c
from lusbio.simulation.patients import Device, Findings, Patient, Recording, grade_of, narrow_findings, video_generator
from lusbio.vocabulary import PROBES


def simulate_recordings(patients: int, seed: int, probe: str = "linear") -> list[Recording]:
    """All videos of a cohort, before they are drawn.

    Args:
        patients: How many, at least 1.
        seed: Decides everything; 0 or more.
        probe: ``"linear"`` or ``"convex"``.

    Returns:
        Recordings sorted by patient and video; 718 for 189 patients, at least 2 per patient.

    Raises:
        LusbioError: If there is no patient, or no such probe.

    Example:
        >>> len(simulate_recordings(189, seed=0))
        718
    """
    if patients < 1:
        raise LusbioError(f"patients is {patients}, expected at least 1")
    if probe not in PROBES:
        raise LusbioError(f"probe is {probe!r}, expected one of {', '.join(PROBES)}")
    rng = video_generator(seed, 0, 0, 0)
    people = zip(_allot_diseases(patients, rng), _allot_videos(patients, rng), strict=True)
    return [r for k, (disease, n) in enumerate(people, start=1) for r in _simulate_patient(k, disease, n, seed, probe)]


def _allot_diseases(patients: int, rng: Generator) -> list[str]:
    """Shares as close to the priors as whole patients allow, in random order."""
    exact = patients * np.array([rates.prior for rates in c.RATES.values()])
    counts = np.floor(exact).astype(int)
    counts[np.argsort(-(exact - counts), kind="stable")[: patients - counts.sum()]] += 1
    return rng.permutation(np.repeat(list(c.RATES), counts)).tolist()


def _allot_videos(patients: int, rng: Generator) -> np.ndarray:
    """Videos per patient with a fixed sum: most have 2 to 4, few up to 12."""
    total = max(c.FEWEST_VIDEOS * patients, round(c.VIDEOS_PER_PATIENT * patients))
    counts = np.full(patients, c.FEWEST_VIDEOS)
    weights = rng.gamma(1.2, size=patients)
    while (missing := total - counts.sum()) > 0:
        open_ = weights * (counts < c.MOST_VIDEOS)
        counts += np.minimum(rng.multinomial(missing, open_ / open_.sum()), c.MOST_VIDEOS - counts)
    return counts


def _simulate_patient(index: int, disease: str, videos: int, seed: int, probe: str) -> list[Recording]:
    rng = video_generator(seed, index, 0, 0)
    rates = c.RATES[disease]
    standard = rng.standard_normal()
    a_only = bool(rng.random() < rates.a_profile_only)
    traits = frozenset() if a_only else _draw_traits(rates, standard, rng)
    loss = 0.0 if a_only else rates.severity + c.PATIENT_SD * standard
    sf = _draw_sf(loss, rng)
    wall = float(c.WALL_MM * np.exp(c.WALL_SPREAD_PATIENTS * rng.standard_normal()))
    breaths = rng.uniform(*c.BREATHS_HZ) + rng.uniform(0.0, c.BREATHS_SPREAD_HZ)
    beats, device = rng.uniform(*c.BEATS_HZ), _draw_device(probe, video_generator(seed, index, 0, 1))
    patient = Patient(index, disease, traits, a_only, loss, sf, wall, breaths, beats, device)
    zones = np.concatenate([rng.permutation(c.ZONES) for _ in range(1 + videos // len(c.ZONES))])[:videos].tolist()
    latents = np.array([_draw_latent(patient, zone, rng) for zone in zones])
    witnesses = _choose_witnesses(patient, zones, latents, rng)
    return [
        _draw_video(patient, k + 1, zone, latents[k], {trait for trait, video in witnesses.items() if video == k}, seed)
        for k, zone in enumerate(zones)
    ]


def _draw_traits(rates: tuple, standard: float, rng: Generator) -> frozenset[str]:
    """What the patient has at all, likelier in the sicker; the rates hold exactly."""

    def has(name: str, rate: float) -> bool:
        # A negated normal has the same distribution, so "sicker" may point down the scale here.
        loading = -c.TRAIT_LOADING[name]
        return loading * standard + np.sqrt(1 - loading**2) * rng.standard_normal() < ndtri(rate)

    traits = {name for name in ("b_lines", "irregular", "consolidation", "effusion") if has(name, getattr(rates, name))}
    thick = has("thick", rates.thick if "irregular" in traits else rates.thick_alone)
    return frozenset(traits | {"thick"} if thick else traits)


def _draw_sf(loss: float, rng: Generator) -> float:
    """S/F ratio through its own quantiles, so that the shares of its ranges hold."""
    latent = c.SF_LOADING * (loss - c.SF_CENTRE) / c.SF_SCALE + np.sqrt(1 - c.SF_LOADING**2) * rng.standard_normal()
    return float(np.round(np.interp(ndtr(latent), c.SF_QUANTILES, c.SF_EDGES), 1))


def _draw_device(probe: str, rng: Generator) -> Device:
    """Nuisance: nothing here knows the disease."""
    depth = float(rng.choice(c.DEPTHS_MM[probe]))
    if probe == "linear":
        narrow, wide = c.WIDTH_MM
        radius, width = 0.0, rng.uniform(narrow, min(wide, depth))  # the depth fills the height of a square image
    else:
        radius = rng.uniform(*c.RADIUS_MM)
        width = radius * float(np.radians(rng.uniform(*c.OPENING_DEGREES)))
    tgc = np.clip(rng.normal(0, c.TGC_SD_DB, 3), -c.TGC_LIMIT_DB, c.TGC_LIMIT_DB)
    fps, frequency = float(rng.integers(*c.FRAMES_PER_SECOND, endpoint=True)), rng.uniform(*c.FREQUENCY_MHZ[probe])
    dynamic_range = rng.uniform(*c.DYNAMIC_RANGE_DB)
    gain = float(np.clip(rng.normal(0, c.GAIN_SD_DB), -c.GAIN_LIMIT_DB, c.GAIN_LIMIT_DB))
    persistence, smoothing = rng.uniform(*c.PERSISTENCE), rng.uniform(*c.SMOOTHING_PX)
    haze, fade, noise = rng.uniform(*c.HAZE_DB[probe]), rng.uniform(*c.FADE_DB[probe]), rng.uniform(*c.NOISE_DB)
    settings = (dynamic_range, gain, tuple(tgc.tolist()), persistence, smoothing, noise)
    return Device(probe, depth, width, radius, frequency, haze, fade, fps, *settings)


def _draw_latent(patient: Patient, zone: str, rng: Generator) -> float:
    if patient.a_profile_only:
        return float(np.clip(rng.normal(*c.A_PROFILE_SEVERITY), -0.5, 0.49))
    return float(patient.aeration_loss + c.ZONE_SHIFT[zone[1]] + c.VIDEO_SD * rng.standard_normal())


def _choose_witnesses(patient: Patient, zones: list[str], latents: np.ndarray, rng: Generator) -> dict[str, int]:
    """One video per trait that must show it, so that rates per patient hold; its latent is raised where needed."""
    witnesses = {}
    for trait, least in (("consolidation", 1.55), ("irregular", 0.55), ("thick", -0.5), ("b_lines", -0.5)):
        if trait in patient.traits:
            witnesses[trait] = k = int(rng.choice(len(zones), p=softmax(2 * latents)))
            if latents[k] < least:
                latents[k] = least + 0.4 * rng.random()
    if "effusion" in patient.traits:
        weights = np.array([c.EFFUSION_BY_ZONE[zone[1]] for zone in zones])
        witnesses["effusion"] = int(rng.choice(len(zones), p=weights / weights.sum()))
    return witnesses


def _draw_video(patient: Patient, index: int, zone: str, latent: float, must: set[str], seed: int) -> Recording:
    """The findings of a video, and the continuous severity in [-0.5, 3.5) that follows from them, in grades.

    The latent is the wished severity, limited to what the patient's traits can show; ``must`` are the traits that this
    video has to show.
    """
    rng = video_generator(seed, patient.index, index, 0)
    traits, white = patient.traits, rng.random() < c.WHITE_WITHOUT_CONSOLIDATION
    highest = 2 if "b_lines" in traits or "irregular" in traits else 0
    if "consolidation" in traits or ("b_lines" in traits and white):
        highest = 3
    if latent >= highest + 0.5:  # cannot look that ill: anywhere within the worst it can
        latent = rng.uniform(highest - 0.5, highest + 0.499)
    latent = float(max(latent, -0.5))
    grade = int(np.clip(np.floor(latent + 0.5), 0, 3))
    extent = latent - grade + 0.5
    findings = draw_geometry(draw_lung(patient, zone, grade, extent, must, rng), patient, grade, extent, rng)
    severity = float(np.clip(grade_of(findings) + extent - 0.5, -0.5, 3.499))
    return Recording(patient, index, zone, severity, findings, seed)


def draw_lung(patient: Patient, zone: str, grade: int, extent: float, must: set[str], rng: Generator) -> Findings:
    """Findings of pleura and lung that give the wished grade.

    Args:
        patient: Whose traits allow which findings.
        zone: One of ``constants.ZONES``.
        grade: Wished grade, 0 to 3.
        extent: Position within the grade, 0 to 1: more and larger findings towards 1.
        must: Traits this video has to show.
        rng: Source of randomness.

    Returns:
        Findings without A-lines and with a pleural depth still to be set (0).
    """

    def shows(trait: str, chance: float) -> bool:
        return trait in patient.traits and (trait in must or rng.random() < chance)

    def beside(chance: float) -> bool:
        return chance > 0 and "irregular" in patient.traits and rng.random() < chance

    def draw_sized() -> tuple[float, ...]:
        return _draw_widths(int(np.clip(np.ceil(4 * extent + rng.normal(0, 0.5)), 1, 4)), rng)

    marks = _draw_qualifiers(patient.traits, grade, extent, must, rng)
    lung = _draw_b_lines(patient, grade, extent, marks, must, rng)
    indent = "indent" in marks or beside(c.GRADES[grade].indent_beside)
    broken = "break" in marks or beside(c.GRADES[grade].break_beside)
    if "irregular" in must and grade and not indent and not broken:
        indent, broken = grade == 1, grade > 1
    consolidations = _draw_consolidations(marks, extent, rng)
    thick, wet = shows("thick", c.GRADES[grade].thick), shows("effusion", c.EFFUSION_BY_ZONE[zone[1]])
    effusion = rng.uniform(*c.EFFUSION_MM[rng.random() >= c.EFFUSION_SMALL]) if wet else 0.0
    option = int(np.clip(round(0.3 + 0.5 * (grade + extent) + rng.normal(0, 0.6)), 1, 3)) if thick else 0
    thickness = rng.uniform(*c.THICKNESS_MM[option])
    below = lung.has_b_lines and rng.random() < c.RATES[patient.disease].sub_pleural
    origin = rng.uniform(*c.B_ORIGIN_MM) if below else 0.0
    indents, breaks = (draw_sized() if irregular else () for irregular in (indent, broken))
    lung = lung._replace(thickness_mm=thickness, b_origin_mm=origin, effusion_mm=effusion)
    return lung._replace(indents_mm=indents, breaks_mm=breaks, consolidations_mm=consolidations)


def _draw_qualifiers(traits: frozenset, grade: int, extent: float, must: set[str], rng: Generator) -> set[str]:
    """What makes the video this grade: at least one of what the patient can have."""
    if grade == 0:
        return set()
    chances = {row.mark: row.chance for row in c.QUALIFIERS if row.grade == grade and row.trait in traits}
    if not chances:  # consolidation alone, and a latent below its grades: a few B-lines stand in
        return {"separate"} if grade == 1 else {"coalescent"}
    marks: set[str] = set()
    while not marks:
        marks = {mark for mark, p in chances.items() if rng.random() < p * (0.6 + 0.8 * extent)}
        if "consolidation" in must:
            marks |= {mark for mark in chances if "consolidation" in mark}
    return marks


def _draw_b_lines(patient: Patient, grade: int, extent: float, marks: set, must: set[str], rng: Generator) -> Findings:
    """The beginning of a video's findings: separate or merged B-lines, or white lung."""
    if "white" in marks:
        return Findings(0.0, white=True)
    if "coalescent" in marks:
        if rng.random() < 0.15:
            return Findings(0.0, b_lines=int(rng.integers(7, 10)))
        bands = rng.uniform(c.NARROWEST_BAND_MM, 7 + 5 * extent, size=1 + (rng.random() < extent / 2))
        return Findings(0.0, b_lines=int(rng.integers(0, 4)), coalescent_mm=tuple(bands.tolist()))
    if "separate" in marks:
        return Findings(0.0, b_lines=int(np.clip(round(1.6 + 3.4 * extent + rng.normal(0, 0.4)), 3, 6)))
    allowed = "b_lines" in patient.traits or patient.a_profile_only
    chance = (0.4 + 1.6 * extent) * c.RATES[patient.disease].isolated_b if grade == 0 else c.GRADES[grade].b_beside
    if "b_lines" in must or (allowed and rng.random() < chance):
        return Findings(0.0, b_lines=int(rng.integers(1, 3 if grade < 2 else 6)))
    return Findings(0.0)


def _draw_consolidations(marks: set, extent: float, rng: Generator) -> tuple[float, ...]:
    if "large consolidation" in marks:
        return _draw_widths(4, rng)
    if "small consolidation" in marks:
        return _draw_widths(int(np.clip(1 + 3 * extent + rng.normal(0, 0.4), 1, 3.9)), rng)
    return ()


def _draw_widths(option: int, rng: Generator) -> tuple[float, ...]:
    """Widths that amount to a size option, 1 to 4."""
    count = {1: (1, 3), 2: (3, 6)}.get(option)
    widths = rng.uniform(*c.CLASS_WIDTHS_MM[option], size=rng.integers(*count) if count else 1).tolist()
    if option > 2 and rng.random() < c.SMALL_BESIDE_LARGE:
        widths.append(rng.uniform(*c.CLASS_WIDTHS_MM[1]))
    return tuple(widths)


def draw_geometry(lung: Findings, patient: Patient, grade: int, extent: float, rng: Generator) -> Findings:
    """Add A-lines and the depth of the pleura so that all that is labelled fits into the image.

    d <= D - 8 mm (less fluid and the thickness of the line); 2d < D with A-lines; 3d < D with stacked
    ones; everything side by side.

    Args:
        lung: What ``draw_lung`` returned.
        patient: Whose chest wall and scanner.
        grade: True grade, which decides how likely A-lines are.
        extent: Position within the grade; A-lines are bolder towards 0.
        rng: Source of randomness.
    """
    depth, width = patient.device.depth_mm, patient.device.width_mm - 2.0
    lung = _shrink_to_fit(lung, width)
    a_lines, stacked, a_width = _draw_a_lines(lung, grade, extent, width - lung.lateral_mm - c.GAP_MM, rng)
    deepest = depth - c.BOTTOM_MM - 1.1 * lung.effusion_mm - lung.thickness_mm
    if a_lines:
        deepest = min(deepest, _deepest_repeated(depth, 1 + stacked))
    wall = _draw_wall(patient.wall_mm, deepest, rng)
    copies = int(a_lines > 0)
    if stacked:
        most = max(n for n in range(1, 5) if n == 2 or wall <= _deepest_repeated(depth, n))
        copies = int(min(1 + rng.integers(1, 4), most))
    return lung._replace(pleura_mm=wall, a_lines=a_lines, a_line_copies=copies, a_line_width_mm=a_width)


def _deepest_repeated(depth: float, copies: int) -> float:
    """How deep a pleural line may lie for so many repetitions to stay in the image while it moves and slopes."""
    return (depth - 1.5) / (copies + 1) - 1.5


def _draw_a_lines(lung: Findings, grade: int, extent: float, room: float, rng: Generator) -> tuple[int, bool, float]:
    """Strength, whether stacked, and width; none where white lung, fluid or lack of room forbid them."""
    if lung.white or lung.effusion_mm or room < 7 or rng.random() >= c.GRADES[grade].a_lines:
        return 0, False, 0.0
    strength = 1 + int(rng.random() < c.GRADES[grade].a_lines_bold + 0.25 - 0.5 * extent)
    stacked = bool(rng.random() < c.A_LINES_STACKED[strength])
    wide = room > 22 and rng.random() < c.A_LINES_WIDE
    return strength, stacked, rng.uniform(*(c.NARROWEST_WINDOW_MM[wide], min(room, 40 if wide else 18)))


def _shrink_to_fit(lung: Findings, width: float) -> Findings:
    """Shrink findings within their size options until they fit side by side; else drop the smallest."""
    if lung.lateral_mm > width:
        lung = narrow_findings(lung._replace(coalescent_mm=lung.coalescent_mm[:1]))
    while lung.lateral_mm > width:
        key = max(("indents_mm", "breaks_mm", "consolidations_mm"), key=lambda key: len(getattr(lung, key)))
        lung = lung._replace(**{key: tuple(sorted(getattr(lung, key))[1:])})
    return lung


def _draw_wall(median: float, deepest: float, rng: Generator) -> float:
    """Skin to pleura: lognormal between the thinnest wall and the deepest that leaves enough lung to be seen."""
    low, spread = c.THINNEST_WALL_MM, c.WALL_SPREAD_VIDEOS
    edges = ndtr(np.log(np.array([low, deepest]) / median) / spread)
    share = np.clip(rng.uniform(*edges), 1e-12, 1 - 1e-12)
    return float(np.clip(median * np.exp(spread * ndtri(share)), low, deepest))
