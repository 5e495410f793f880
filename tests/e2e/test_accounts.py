"""Two accounts of one provider kind in a sweep: each model is where its reference says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from adapters.hosted.rehearsal.server import serving
from adapters.hosted.rehearsal.settings import ServerSettings
from adapters.hosted.rehearsal.standin import backend
from engine.cli.serve_verb import tools

from .hosted import INLINE, KEY_ENV, Server, Study

pytestmark = pytest.mark.slow

GRADER = """\
    grader: {{provider: hosted/openai, base_url: "{url}", key_env: {key_env}}}
"""


def calls(server: Server, since: int = 0) -> Counter[tuple[str, str]]:
    """What was asked of a server: method and path, without ids, and model."""
    log = server.audit(log=True)["log"][since:]
    return Counter((call.partition("/v1/")[2].partition("/")[0], model) for _, call, model, *_ in log)


def test_a_model_is_tuned_at_one_server_and_judged_at_another(server: Server, tmp_path: Path) -> None:
    with serving(ServerSettings(), backend(tools())) as url:
        grader = Server(url)
        study = Study.of(tmp_path, server, 31, GRADER.format(url=url, key_env=KEY_ENV))
        spec = (tmp_path / "hosted.yaml").read_text()
        spec = spec.replace("model: hosted/openai:", "model: hosted/openai@ours:")
        judges = "judges: ['rubric/policy:hosted/openai@grader:standin-judge']"
        (tmp_path / "hosted.yaml").write_text(spec.replace("judges: [standin/rules]", judges))
        said = study.run(*INLINE)
        trained, graded = calls(server, study.before["requests"]), calls(grader)
    assert study.statuses() == {0: "done", 1: "done", 2: "done"}, said
    assert len(study.jobs()) == 2
    assert {path for path, _ in graded} == {"chat"}
    assert {model for _, model in graded} == {"standin-judge"}
    assert "standin-judge" not in {model for _, model in trained}
    scores = study.rows("SELECT count(*) AS n FROM v_scores WHERE outcome = 'scored'")
    assert scores == [{"n": 3 * 11}]


def test_without_names_it_is_not_guessed_who_pays(server: Server, tmp_path: Path) -> None:
    study = Study.of(tmp_path, server, 32, GRADER.format(url="http://127.0.0.1:9/v1", key_env=KEY_ENV))
    said = study.run(*INLINE, code=2)
    assert "hosted.yaml:3:10: recipe.model: `hosted/openai` has 2 accounts, ours and grader, and" in said
    assert "hosted/openai@ours:standin-aligned" in said
