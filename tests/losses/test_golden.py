"""Each loss on closed-form inputs against 43 reference values (golden.json, computed in float64 by other code)."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses import functional as L

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


def feat(b: int, c: int, h: int, w: int, p: int) -> Tensor:
    i, j, k, m = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (b, c, h, w)), indexing="ij")
    return torch.sin(0.3 * i * (p + 1) + 0.5 * j + 0.7 * k * p + 0.11 * m + p)


def closed_form(dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs, computed in float64 and only then rounded."""
    i, j = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(10, dtype=torch.float64)
    n, d = torch.arange(20, dtype=torch.float64)[:, None], torch.arange(16, dtype=torch.float64)
    fs, ft = feat(8, 16, 8, 8, 1), feat(8, 16, 8, 8, 2)
    vs, vt = 5 * fs.mean((2, 3)), 5 * ft.mean((2, 3))
    values = {
        "zs": 3 * torch.sin(0.7 * i + 1.3 * j + 0.1),
        "zt": 4 * torch.cos(0.5 * i - 0.9 * j + 0.3),
        "zt2": 4 * torch.cos(0.4 * i - 1.1 * j + 0.9),
        "fs": fs,
        "ft": ft,
        "ft4": feat(8, 16, 4, 4, 2),
        "vs": vs,
        "vt": vt,
        "es": F.normalize(vs),
        "et": F.normalize(vt),
        "memory_1": F.normalize(torch.sin(0.9 * n + 0.4 * d)),
        "memory_2": F.normalize(torch.cos(0.6 * n - 0.8 * d)),
        "log_scale": torch.full((16,), math.log(math.exp(5 - 1e-5) - 1), dtype=torch.float64),
        "theta": torch.ones((), dtype=torch.float64),
    }
    return {name: value.to(dtype) for name, value in values.items()}


Y = 3 * torch.arange(8) % 10
INDEX = torch.arange(8)
CONTRAST = (INDEX[:, None] + torch.tensor([0, 3, 5, 7, 11, 13])) % 20


def compute(name: str, dtype: torch.dtype) -> Tensor:
    v = closed_form(dtype)
    zs, zt, fs, ft, ft4, vs, vt = (v[k] for k in ("zs", "zt", "fs", "ft", "ft4", "vs", "vt"))
    std_s, std_t = L.standardize(zs), L.standardize(zt)
    teachers = torch.stack([zt, v["zt2"]])
    fs4 = fs[:, :, :4, :4]
    t_learned = L.ctkd_temperature(v["theta"], 1, 20)
    z_1, z_2 = L.crd_log_z(v["et"], v["memory_1"], CONTRAST, 0.07), L.crd_log_z(v["es"], v["memory_2"], CONTRAST, 0.07)
    crd_s = L.crd(v["es"], v["memory_2"], CONTRAST, z_2, 0.07)
    crd_t = L.crd(v["et"], v["memory_1"], CONTRAST, z_1, 0.07)
    values = {
        "cross_entropy(zs, y)": F.cross_entropy(zs, Y),
        "kd(zs, zt, temperature=4)": L.kd(zs, zt, temperature=4),
        "kd(zs, zt, temperature=1)": L.kd(zs, zt, temperature=1),
        "dkd(zs, zt, y, alpha=1, beta=8, temperature=4)": L.dkd(zs, zt, Y, alpha=1, beta=8, temperature=4),
        "dkd(zs, zt, y, alpha=1, beta=2, temperature=4)": L.dkd(zs, zt, Y, alpha=1, beta=2, temperature=4),
        "dkd(zs, zt, y, alpha=1, beta=0.5, temperature=1)": L.dkd(zs, zt, Y, alpha=1, beta=0.5, temperature=1),
        "dist(zs, zt, beta=1, gamma=1, temperature=1)": L.dist(zs, zt, beta=1, gamma=1, temperature=1),
        "dist(zs, zt, beta=1, gamma=1, temperature=4)": L.dist(zs, zt, beta=1, gamma=1, temperature=4),
        "kd(standardize(zs), standardize(zt), temperature=2)": L.kd(std_s, std_t, temperature=2),
        "dkd(standardize(zs), standardize(zt), y, alpha=9, beta=72, temperature=2)": L.dkd(std_s, std_t, Y, 9, 72, 2),
        "class_correlation(zs, zt, temperature=4)": L.class_correlation(zs, zt, temperature=4),
        "batch_correlation(zs, zt, temperature=4)": L.batch_correlation(zs, zt, temperature=4),
        "nkd(zs, zt, y, gamma=1.5, temperature=1)": L.nkd(zs, zt, Y, gamma=1.5, temperature=1),
        "nkd(zs, zt, y, gamma=3.5, temperature=3)": L.nkd(zs, zt, Y, gamma=3.5, temperature=3),
        "wsld(zs, zt, y, temperature=4)": L.wsld(zs, zt, Y, temperature=4),
        "CTKD: temperature at theta=1, t_start=1, t_range=20": t_learned,
        "CTKD: kd at that temperature": L.kd(zs, zt, t_learned),
        "rld(zs, zt, y, alpha=1, beta=8, temperature=4, alpha_temperature=1)": L.rld(zs, zt, Y, 1, 8, 4, 1),
        "hint(fs, ft)": L.hint(fs, ft),
        "attention(fs, ft, p=2)": L.attention(fs, ft, p=2),
        "attention(fs, ft4, p=2)": L.attention(fs, ft4, p=2),
        "similarity(fs, ft)": L.similarity(fs, ft),
        "rkd_distance(vs, vt)": L.rkd_distance(vs, vt),
        "rkd_angle(vs, vt)": L.rkd_angle(vs, vt),
        "pkt(vs, vt)": L.pkt(vs, vt),
        "correlation(vs, vt)": L.correlation(vs, vt),
        "nst(fs, ft)": L.nst(fs, ft),
        "vid(fs, ft, log_scale) with log_scale = log(exp(5 - 1e-5) - 1) per channel": L.vid(fs, ft, v["log_scale"]),
        "hierarchical_context([fs], [ft])": L.hierarchical_context([fs], [ft]),
        "hierarchical_context([fs[:, :, :4, :4]], [ft4])": L.hierarchical_context([fs4], [ft4]),
        "hierarchical_context([fs, fs[:, :, :4, :4]], [ft, ft4])": L.hierarchical_context([fs, fs4], [ft, ft4]),
        "ofd(fs, ft, margin) with margin = -0.5 everywhere": L.ofd(fs, ft, margin=-0.5),
        "factor(fs, ft)  (p1=2, p2=1)": L.factor(fs, ft),
        "activation_boundary(fs, ft, margin=1), one stage": L.activation_boundary(fs, ft, margin=1),
        "CRD: loss of student embedding": crd_s,
        "CRD: loss of teacher embedding": crd_t,
        "CRD: total": crd_s + crd_t,
        # Z of memory 1 is that of the student's scores, which are taken against the teacher's rows, and conversely.
        "CRD: normalization Z of memory 1": z_2.exp(),
        "CRD: normalization Z of memory 2": z_1.exp(),
        "CRD: memory_1[0, 0] after the update": L.crd_update(v["memory_1"], INDEX, v["es"], 0.5)[0, 0],
        "fusion, mean of logits: kd(zs, (zt + zt2)/2, temperature=4)": L.kd(zs, L.fuse_logits(teachers), 4),
        "fusion, mean of softened probabilities, temperature=4": L.kd(zs, L.fuse_probabilities(teachers, 4), 4),
        "fusion, mean of the two losses, temperature=4": L.mean_loss(lambda s, t: L.kd(s, t, 4), zs, teachers),
    }
    assert values.keys() == GOLDEN.keys()
    return values[name]


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, dtype: torch.dtype, rel: float) -> None:
    value = compute(name, dtype)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(GOLDEN[name], rel=rel)
