"""Who has what: disease -> patient -> video -> findings -> severity, and the S/F ratio.

Fixed from the literature first, and never tuned to what a network scores on it. Nuisance (device, gain, depth, body
habitus, frame rate) is drawn per patient and does not depend on disease or severity, apart from what geometry forces:
an A-line needs room for twice the depth of the pleura.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from lusbio.errors import LusbioError
from lusbio.simulation import constants as c
from lusbio.simulation.draws import draw_geometry, draw_lung
from lusbio.simulation.findings import Findings, grade_of
from lusbio.simulation.patients import Device, Patient, Recording, video_generator
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
    diseases = _allot_diseases(patients, rng)
    counts = _allot_videos(patients, rng)
    recordings = []
    for index, (disease, count) in enumerate(zip(diseases, counts, strict=True), start=1):
        recordings += _simulate_patient(index, disease, count, seed, probe)
    return recordings


def _allot_diseases(patients: int, rng: np.random.Generator) -> list[str]:
    """Shares as close to the priors as whole patients allow, in random order."""
    priors = np.array([rates.prior for rates in c.RATES.values()])
    exact = patients * priors
    counts = np.floor(exact).astype(int)
    short = patients - counts.sum()
    counts[np.argsort(-(exact - counts), kind="stable")[:short]] += 1
    return [str(d) for d in rng.permutation(np.repeat(list(c.RATES), counts))]


def _allot_videos(patients: int, rng: np.random.Generator) -> np.ndarray:
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
    patient = Patient(
        index=index,
        disease=disease,
        traits=traits,
        a_profile_only=a_only,
        aeration_loss=loss,
        sf_value=_draw_sf(loss, rng),
        wall_mm=float(c.WALL_MM * np.exp(c.WALL_SPREAD_PATIENTS * rng.standard_normal())),
        breaths_hz=float(rng.uniform(*c.BREATHS_HZ) + max(0.0, loss - 1) * rng.uniform(0.0, c.BREATHS_PER_GRADE_HZ)),
        beats_hz=float(rng.uniform(*c.BEATS_HZ)),
        device=_draw_device(probe, video_generator(seed, index, 0, 1)),
    )
    zones = [c.ZONES[i % len(c.ZONES)] for i in _zone_order(videos, rng)]
    latents = np.array([_draw_latent(patient, zone, rng) for zone in zones])
    witnesses = _choose_witnesses(patient, zones, latents, rng)
    recordings = []
    for k, zone in enumerate(zones):
        must = frozenset(trait for trait, video in witnesses.items() if video == k)
        draw = video_generator(seed, index, k + 1, 0)
        findings, severity = draw_findings(patient, zone, float(latents[k]), must, draw)
        recordings.append(Recording(patient, k + 1, zone, severity, findings, seed))
    return recordings


def _zone_order(videos: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.permutation(len(c.ZONES)) for _ in range(1 + videos // len(c.ZONES))])[:videos]


def _draw_traits(rates: c.DiseaseRates, standard: float, rng: np.random.Generator) -> frozenset[str]:
    """What the patient has at all, likelier in the sicker; the rates hold exactly."""

    def has(name: str, rate: float) -> bool:
        loading = c.TRAIT_LOADING[name]
        return bool(loading * standard + np.sqrt(1 - loading**2) * rng.standard_normal() < ndtri(rate))

    # A negated normal has the same distribution, so "sicker" may point down the scale here.
    standard = -standard
    traits = {name for name in ("b_lines", "irregular", "consolidation", "effusion") if has(name, getattr(rates, name))}
    if has("thick", rates.thick if "irregular" in traits else rates.thick_alone):
        traits.add("thick")
    return frozenset(traits)


def _draw_sf(loss: float, rng: np.random.Generator) -> float:
    """S/F ratio through its own quantiles, so that the shares of its ranges hold."""
    latent = c.SF_LOADING * (loss - c.SF_CENTRE) / c.SF_SCALE + np.sqrt(1 - c.SF_LOADING**2) * rng.standard_normal()
    return float(np.round(np.interp(ndtr(latent), c.SF_QUANTILES, c.SF_EDGES), 1))


def _draw_device(probe: str, rng: np.random.Generator) -> Device:
    """Nuisance: nothing here knows the disease."""

    def between(low_high: tuple[float, float]) -> float:
        return float(rng.uniform(*low_high))

    ranges, linear = c.DEVICES[probe], probe == "linear"
    depth = float(rng.choice(c.DEPTHS_MM[probe]))
    radius = 0.0 if linear else between(ranges["radius_mm"])
    if linear:
        narrow, wide = ranges["width_mm"]
        width = between((narrow, min(wide, depth)))  # the depth fills the height of a square image
    else:
        width = radius * float(np.radians(between(ranges["opening_degrees"])))
    tgc = np.clip(rng.normal(0, c.TGC_SD_DB, 3), -c.TGC_LIMIT_DB, c.TGC_LIMIT_DB)
    return Device(
        probe=probe,
        depth_mm=depth,
        width_mm=width,
        radius_mm=radius,
        fps=float(rng.integers(c.FRAMES_PER_SECOND[0], c.FRAMES_PER_SECOND[1] + 1)),
        frequency_mhz=between(ranges["frequency_mhz"]),
        dynamic_range_db=between(c.DYNAMIC_RANGE_DB),
        gain_db=float(np.clip(rng.normal(0, c.GAIN_SD_DB), -c.GAIN_LIMIT_DB, c.GAIN_LIMIT_DB)),
        tgc_db=tuple(float(v) for v in tgc),
        persistence=between(c.PERSISTENCE),
        smoothing_px=between(c.SMOOTHING_PX),
        haze_db=between(ranges["haze_db"]),
        fade_db=between(ranges["fade_db"]),
        noise_db=between(c.NOISE_DB),
    )


def _draw_latent(patient: Patient, zone: str, rng: np.random.Generator) -> float:
    if patient.a_profile_only:
        mean, sd = c.A_PROFILE_SEVERITY
        return float(np.clip(rng.normal(mean, sd), -0.5, 0.49))
    return float(patient.aeration_loss + c.ZONE_SHIFT[zone[1]] + c.VIDEO_SD * rng.standard_normal())


def _choose_witnesses(
    patient: Patient, zones: Sequence[str], latents: np.ndarray, rng: np.random.Generator
) -> dict[str, int]:
    """One video per trait that must show it, so that rates per patient hold; its latent is raised where needed."""
    witnesses = {}
    for trait, least in (("consolidation", 1.55), ("irregular", 0.55), ("thick", -0.5), ("b_lines", -0.5)):
        if trait in patient.traits:
            witnesses[trait] = k = int(rng.choice(len(zones), p=_softmax(2 * latents)))
            if latents[k] < least:
                latents[k] = least + 0.4 * rng.random()
    if "effusion" in patient.traits:
        weights = np.array([c.EFFUSION_BY_ZONE[zone[1]] for zone in zones])
        witnesses["effusion"] = int(rng.choice(len(zones), p=weights / weights.sum()))
    return witnesses


def _softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


def draw_findings(
    patient: Patient, zone: str, latent: float, must: frozenset[str], rng: np.random.Generator
) -> tuple[Findings, float]:
    """The findings of a video, and the severity that follows from them.

    Args:
        patient: Whose traits allow which findings.
        zone: One of ``constants.ZONES``.
        latent: Wished severity, in grades; limited to what the patient's traits can show.
        must: Traits that this video has to show.
        rng: Source of randomness.

    Returns:
        Findings, and the continuous severity in [-0.5, 3.5); rounded, it is ``grade_of(findings)``.
    """
    highest = _highest_grade(patient.traits, rng)
    if latent >= highest + 0.5:  # cannot look that ill: anywhere within the worst it can
        latent = rng.uniform(highest - 0.5, highest + 0.499)
    latent = float(max(latent, -0.5))
    grade = int(np.clip(np.floor(latent + 0.5), 0, 3))
    extent = latent - grade + 0.5
    lung = draw_lung(patient, zone, grade, extent, must, rng)
    findings = draw_geometry(lung, patient, grade, extent, rng)
    reached = grade_of(findings)
    return findings, float(np.clip(reached + extent - 0.5, -0.5, 3.499))


def _highest_grade(traits: frozenset[str], rng: np.random.Generator) -> int:
    """What a video of a patient with these traits can be at worst."""
    white = rng.random() < c.WHITE_WITHOUT_CONSOLIDATION
    if "consolidation" in traits or ("b_lines" in traits and white):
        return 3
    return 2 if "b_lines" in traits or "irregular" in traits else 0
