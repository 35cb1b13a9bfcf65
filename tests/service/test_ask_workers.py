"""Questions about one place on a small cluster: prepared by workers, answered by the model's replica."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from earthmap.errors import AreaError, ModelError, QueryError
from earthmap.grid import owned_ground, tile_to_lonlat
from earthmap.model import new_earth_onevision, train_words
from earthmap.pipeline.cluster import cluster
from earthmap.pipeline.sharing import deployed
from earthmap.predict import build_predictor
from earthmap.service.ask_relay import Relay
from earthmap.service.asking import SPECTRAL, Asked, BusyError
from earthmap.service.replicas import ReplicaOptions, deploy, spec_of
from earthmap.service.trained import Trained
from earthmap.synthetic import World
from tests.model.conftest import of_others
from tests.pipeline.cubes import read_run
from tests.service.answering import AnsweringHere
from tests.worlds import middle_tile


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_workers_and_replicas_answer_as_one_process_does(
    tmp_path: Path, drawn_catalog: Path, drawn_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    import ray
    from ray import serve

    texts = ["Is there any water? yes no none water", "Reply with mask[16|0:0+3] poly"] * 3
    for seed, name in enumerate(("model", "trained"), 1):
        of_others(new_earth_onevision("tiny", train_words(texts, size=400), seed=seed)).save(tmp_path / name)
    mine, theirs = ({**spec_of(str(tmp_path / name)), "dtype": "float32"} for name in ("model", "trained"))
    tile = middle_tile(drawn_world)
    area = list(owned_ground(tile).buffer(-1e-4).bounds)
    run = read_run(
        tmp_path / "run",
        store=tmp_path / "store",
        catalog=drawn_catalog,
        area=area,
        sensor="sentinel-2-l2a",
        tile_size=128,
    )
    at = tuple(float(part) for part in tile_to_lonlat(tile, 0.5, 0.5))

    def asked(text: str, model: str, **more: Any) -> Asked:
        return Asked(**{"run": str(run), "at": at, "question": {"text": text}, "model": model, **more})

    questions = [
        asked(text, model)
        for text in ("Where is water?", "Is there any water?", "How much of this is vegetation?")
        for model in (SPECTRAL, "mine")
    ]

    async def trained_models(relay: Relay) -> None:
        """They are offered when they are asked, beside what is offered anyhow, few at once, and again when gone."""
        question = asked("Is there any water?", "job:one", checkpoint=str(tmp_path / "trained"))
        here = AnsweringHere({"job:one": build_predictor(theirs)})
        expected = await here.answer(question)
        assert expected["predictor"] != (await relay.answer(questions[3]))["predictor"]
        for reply in await asyncio.gather(*(relay.answer(question) for _ in range(3))):
            _same(reply, expected)
        with pytest.raises(ModelError):
            await relay.answer(asked("Is there any water?", "job:none", checkpoint=str(tmp_path / "nowhere")))
        another = await asyncio.to_thread(Trained, ReplicaOptions(fewest=1), most=1)
        with pytest.raises(BusyError):
            await relay.answer(question)
        _same(await relay.answer(question), expected)
        for name in ("job:two", "job:three"):
            await another.offer(name, str(tmp_path / "trained"))
        while "job:two" in serve.status().applications:
            await asyncio.sleep(0.1)
        assert {"job:one", "job:three"} <= serve.status().applications.keys()
        assert deployed().keys() == {"mine"}, "runs share what may be withdrawn"
        await here.close()

    async def all_of(address: str) -> None:
        relay = Relay(lambda: address, workers=1, replicas=ReplicaOptions(fewest=1))
        here = AnsweringHere({SPECTRAL: build_predictor({"name": SPECTRAL}), "mine": build_predictor(mine)})
        try:
            expected = [await here.answer(one) for one in questions]
            found = await asyncio.gather(*(relay.answer(one) for one in questions * 4))
            for number, reply in enumerate(found):
                _same(reply, expected[number % len(expected)])
            with pytest.raises(AreaError, match="has read no ground"):
                await relay.answer(asked("Where is water?", SPECTRAL, at=(100.0, 10.0)))
            with pytest.raises(QueryError):
                await relay.answer(asked("Find the ships", SPECTRAL))
            with pytest.raises(BusyError, match="absent"):
                await relay.answer(asked("Where is water?", "absent"))
            await asyncio.to_thread(deploy, {"mine": mine}, options=ReplicaOptions(fewest=1, asked_together=2))
            again = await asyncio.gather(*(relay.answer(questions[1]) for _ in range(6)))
            for reply in again:  # though the replicas are others
                _same(reply, expected[1])
            await trained_models(relay)
        finally:
            await relay.close()
            await here.close()

    with cluster(None):
        deploy({"mine": mine}, options=ReplicaOptions(fewest=1))
        asyncio.run(all_of(ray.get_runtime_context().gcs_address))
        serve.shutdown()  # or a thread of this process looks for it as long as the process lives


def _same(reply: dict[str, Any], expected: dict[str, Any]) -> None:
    """But for the last bits of probabilities, which the composition of a batch may change."""
    loose = ("probability", "scores", "fraction", "found")
    assert {name: value for name, value in reply.items() if name not in loose} == {
        name: value for name, value in expected.items() if name not in loose
    }
    assert reply["probability"] == pytest.approx(expected["probability"], abs=1e-2)
    assert len(reply["found"]["features"]) == len(expected["found"]["features"])
