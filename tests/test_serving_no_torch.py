"""All of serving runs where torch, MONAI, Lightning and transformers can't be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medfuse.attribution.settings import AttributionSettings
from medfuse.golden import read_golden
from medfuse_serving.explainer import Explainer
from medfuse_serving.predictor import Predictor

PROGRAM = """
import importlib, json, pkgutil, sys
from pathlib import Path

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "monai", "lightning", "transformers", "captum"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
try:
    import torch
except ImportError:
    pass
else:
    raise SystemExit("the block does not work")

import medfuse_serving
names = [m.name for m in pkgutil.walk_packages(medfuse_serving.__path__, "medfuse_serving.")]
for name in names:
    importlib.import_module(name)

from medfuse.golden import read_golden
from medfuse_serving.answer import to_answer, to_json
from medfuse_serving.predictor import Predictor
from medfuse_serving.server import build_app

predictor = Predictor(Path(sys.argv[1]))
predictor.check_golden()
build_app(predictor, (), 2**20)
(prediction,) = predictor.predict(read_golden(predictor.bundle).studies[-1:])

from medfuse.attribution.settings import AttributionSettings
from medfuse_serving.explainer import Explainer

explainer = Explainer(predictor)
settings = AttributionSettings(steps=2, most_steps=2)
study = read_golden(predictor.bundle).studies[-1]
found = explainer.explain(study, explainer.targets[0], settings).explanation.attribution
maps = {m.value: [list(v.shape), float(v.sum())] for m, v in found.values.items()}
answer = json.loads(to_json(to_answer(prediction)))
print(json.dumps({"names": names, "answer": answer, "maps": maps}))
"""


def test_every_module_imports_and_a_study_is_answered_with_torch_blocked(
    tiny_bundle: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"medfuse_serving.predictor", "medfuse_serving.page.mount"} <= set(said["names"])
    predictor = Predictor(tiny_bundle)
    (here,) = predictor.predict(read_golden(predictor.bundle).studies[-1:])
    for task, there in zip(here.tasks, said["answer"]["tasks"], strict=True):
        assert list(there["logits"].values()) == pytest.approx(task.logits.tolist())
    explainer = Explainer(predictor)
    settings = AttributionSettings(steps=2, most_steps=2)
    study = read_golden(predictor.bundle).studies[-1]
    found = explainer.explain(study, explainer.targets[0], settings).explanation.attribution
    assert set(said["maps"]) == {"image", "note", "voice"}
    for modality, values in found.values.items():
        shape, total = said["maps"][modality.value]
        assert values.any()
        assert shape == list(values.shape)
        assert total == pytest.approx(float(values.sum()), rel=1e-4, abs=1e-6)
