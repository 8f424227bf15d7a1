"""Make the table of methods.md from the code: `python docs/make_methods.py`. With `--measure`, measure its costs anew.

A row is a preset of conf/loss: its values, the last lines of its class's docstring (`Matches:`, `Formula:`, `Paper:`),
and its cost from method_costs.json, which docs/measure_methods.py fills.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from kd_lightning.config import CONF_DIR

HERE = Path(__file__).parent
PAGE, COSTS = HERE / "methods.md", HERE / "method_costs.json"
BEGIN, END = "<!-- table: python docs/make_methods.py -->", "<!-- end of table -->"
PRESETS = sorted(p.stem for p in (CONF_DIR / "loss").glob("*.yaml"))


def about(target: str) -> dict[str, str]:
    """Return `matches`, `formula` and `paper` of a method. Raises ValueError if its docstring lacks one."""
    doc = get_object(target).__doc__ or ""
    found = {key: re.search(rf"^\s*{key.title()}: (.+)$", doc, re.MULTILINE) for key in ("matches", "formula", "paper")}
    for key, match in found.items():
        if match is None:
            raise ValueError(f"the docstring of {target} lacks a line '{key.title()}: …'")
    return {key: match[1] for key, match in found.items() if match}


def row(preset: str, cost: dict[str, float]) -> str:
    """Return one line of the table."""
    path = CONF_DIR / "loss" / f"{preset}.yaml"
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    methods = {name: value for name, value in node.items() if isinstance(value, dict) and "_target_" in value}
    if methods:  # a combination
        each = [about(method["_target_"]) for method in methods.values()]
        text = {key: "; ".join(one[key] for one in each) for key in ("matches", "paper")}
        text["formula"] = "`" + " + ".join(f"{number(m['alpha'])}·{name}" for name, m in methods.items()) + "`"
    else:
        text = about(node["_target_"])
    heading = path.read_text().splitlines()[0]
    own = [paper for paper in re.findall(r"arXiv \d{4}\.\d{4,5}", heading) if paper not in text["paper"]]
    paper = text["paper"] + (f"; values: {', '.join(own)}" if own else "")
    paper = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[\1](https://arxiv.org/abs/\1)", paper)
    cells = (f"`{preset}`", text["matches"], text["formula"], values(node), f"{cost[preset]:.2f}", paper)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def values(node: dict[str, Any], prefix: str = "") -> str:
    """Return the preset's values, those of every method first, without those that switch something off."""
    node = {key: node[key] for key in ("alpha", "ce_weight", "temperature") if key in node} | node
    if node.get("student_layers") == node.get("teacher_layers", ""):
        node = {"layers" if key == "student_layers" else key: v for key, v in node.items() if key != "teacher_layers"}
    if node.get("adapt", "") is None:
        node["by"] = None
    if node.get("divergence") == "forward_kl":
        node["divergence"] = node["beta"] = None
    found = []
    for key, value in node.items():
        if key in ("_target_", "fusion") or value is None or value is False:
            continue
        if isinstance(value, dict) and "schedule" not in value:
            found.append(values(value, f"{key}."))
        else:
            found.append(f"{prefix}{key} {number(value)}")
    return ", ".join(f for f in found if f)


def number(value: Any) -> str:
    """Return 4.0 as `4`, a schedule as `0 → 1 in 20 epochs`."""
    if isinstance(value, dict):
        how = "" if value["schedule"] == "linear" else f" ({value['schedule']})"
        return f"{number(value['start'])} → {number(value['end'])} in {value['epochs']} epochs{how}"
    if isinstance(value, list):
        return f"[{', '.join(map(number, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is True else str(value)


def table() -> str:
    """Return the lines between the two marks of the page. Raises KeyError if a preset was not measured."""
    costs = json.loads(COSTS.read_text())
    lines = [
        "| `loss=` | what is matched | formula of the method | preset | cost | paper |",
        "|---|---|---|---|---:|---|",
        *(row(preset, costs["cost"]) for preset in PRESETS),
        "",
        f"Cost: {costs['what']} {costs['device']}, torch {costs['torch']}, lightning {costs['lightning']}; "
        f"`{costs['command']}`. `kd` over itself came out as {costs['cost']['kd']:.2f}: differences below a tenth mean "
        "nothing.",
    ]
    return "\n".join(lines)


def page() -> str:
    """Return the page with its table made anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure the costs on this machine first, some minutes")
    if parser.parse_args().measure:
        from measure_methods import measure

        COSTS.write_text(json.dumps(measure(PRESETS), indent=1) + "\n")
    PAGE.write_text(page())
