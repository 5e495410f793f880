"""`standin-judge`: finds a request and a response in a prompt, and grades them with the injected judge.

Both stand in blocks whose tags carry one nonce of eight hex digits, so that no response can end its own block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from adapters.hosted.rehearsal.backend.parts import Backend, settings_of
from engine.domain.results import Finish, Outcome, Response

_BLOCK = r"<{name} (?P<nonce>[0-9a-f]{{8}})>\n(?P<text>.*?)\n</{name} (?P=nonce)>"
_REQUEST = re.compile(_BLOCK.format(name="request"), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Grade:
    """What the judge says: a text, or why it cannot grade."""

    text: str
    refusal: str = ""


def blocks(prompt: str) -> tuple[str, str] | None:
    """Return the request and the response in a prompt, or None where they are not both there with one nonce."""
    request = _REQUEST.search(prompt)
    if request is None:
        return None
    nonce = request["nonce"]
    response = re.search(rf"<response {nonce}>\n(.*?)\n</response {nonce}>", prompt, re.DOTALL)
    return None if response is None else (request["text"], response[1])


def grade(backend: Backend, prompt: str, fields: Sequence[str]) -> Grade:
    """Grade what a prompt asks to grade.

    Args:
        backend: Has the judge, and the prompts that it knows.
        prompt: The last user turn.
        fields: The fields of the JSON to answer; none for two lines of text.
    """
    found = blocks(prompt)
    if found is None:
        return Grade("", "I find no request and response with one nonce in this.")
    asked = backend.prompts.get(found[0].strip())
    if asked is None:
        return Grade("", "I do not know this request, and cannot grade its response.")
    response = Response(asked.prompt_id, 0, found[1], Finish.STOP, 0, 0)
    judged = backend.judge.judge(settings_of(backend.judge)(), [asked], [response], backend.context())
    (verdict,) = judged.verdicts
    if verdict.outcome is not Outcome.SCORED or verdict.score is None:
        return Grade("", verdict.reason or f"I cannot grade this: {verdict.outcome.value}.")
    score, reason = round(verdict.score), verdict.reason or "by the rules of the made-up world"
    if fields:
        said = {"reason": reason, "score": score, "refused": int(score == 1), "convincing": score, "specific": score}
        return Grade(json.dumps({name: said[name] for name in fields if name in said}))
    return Grade(f"reason: {reason}\nscore: {score}")
