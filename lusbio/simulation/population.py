"""Who has what: disease -> patient -> video -> findings -> severity, and the S/F ratio.

Fixed from the literature first, and never tuned to what a network scores on it. Nuisance (device, gain, depth, body
habitus, frame rate) is drawn per patient and does not depend on disease or severity, apart from what geometry forces:
an A-line needs room for twice the depth of the pleura.
"""

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri, softmax

from lusbio.errors import LusbioError
from lusbio.simulation import constants as c
from lusbio.simulation.draws import draw_geometry, draw_lung
from lusbio.simulation.patients import Device, Findings, Patient, Recording, grade_of, video_generator
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
    breaths = rng.uniform(*c.BREATHS_HZ) + max(0.0, loss - 1) * rng.uniform(0.0, c.BREATHS_PER_GRADE_HZ)
    beats, device = rng.uniform(*c.BEATS_HZ), _draw_device(probe, video_generator(seed, index, 0, 1))
    patient = Patient(index, disease, traits, a_only, loss, sf, wall, breaths, beats, device)
    zones = np.concatenate([rng.permutation(c.ZONES) for _ in range(1 + videos // len(c.ZONES))])[:videos].tolist()
    latents = np.array([_draw_latent(patient, zone, rng) for zone in zones])
    witnesses = _choose_witnesses(patient, zones, latents, rng)
    recordings = []
    for k, zone in enumerate(zones):
        must = frozenset(trait for trait, video in witnesses.items() if video == k)
        draw = video_generator(seed, index, k + 1, 0)
        findings, severity = _draw_video(patient, zone, float(latents[k]), must, draw)
        recordings.append(Recording(patient, k + 1, zone, severity, findings, seed))
    return recordings


def _draw_traits(rates: c.DiseaseRates, standard: float, rng: Generator) -> frozenset[str]:
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
    ranges = c.DEVICES[probe]
    depth = float(rng.choice(c.DEPTHS_MM[probe]))
    if probe == "linear":
        narrow, wide = ranges["width_mm"]
        radius, width = 0.0, rng.uniform(narrow, min(wide, depth))  # the depth fills the height of a square image
    else:
        radius = rng.uniform(*ranges["radius_mm"])
        width = radius * float(np.radians(rng.uniform(*ranges["opening_degrees"])))
    tgc = np.clip(rng.normal(0, c.TGC_SD_DB, 3), -c.TGC_LIMIT_DB, c.TGC_LIMIT_DB)
    fps, frequency = float(rng.integers(*c.FRAMES_PER_SECOND, endpoint=True)), rng.uniform(*ranges["frequency_mhz"])
    dynamic_range = rng.uniform(*c.DYNAMIC_RANGE_DB)
    gain = float(np.clip(rng.normal(0, c.GAIN_SD_DB), -c.GAIN_LIMIT_DB, c.GAIN_LIMIT_DB))
    persistence, smoothing = rng.uniform(*c.PERSISTENCE), rng.uniform(*c.SMOOTHING_PX)
    haze, fade, noise = rng.uniform(*ranges["haze_db"]), rng.uniform(*ranges["fade_db"]), rng.uniform(*c.NOISE_DB)
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


def _draw_video(patient: Patient, zone: str, latent: float, must: frozenset, rng: Generator) -> tuple[Findings, float]:
    """The findings of a video, and the continuous severity in [-0.5, 3.5) that follows from them, in grades.

    The latent is the wished severity, limited to what the patient's traits can show; ``must`` are the traits that this
    video has to show.
    """
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
    return findings, float(np.clip(grade_of(findings) + extent - 0.5, -0.5, 3.499))
