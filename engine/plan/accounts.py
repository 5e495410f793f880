"""Which stages run on which account: those whose adapter, or whose judge's model, is a provider's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine import registry
from engine.domain.stage import Stage, StageKind
from engine.domain.sweep import Account
from engine.ports.account import ApiJudge
from engine.ports.provider import Access
from engine.registry import Kind, split_ref


def provider_of(kind: StageKind, adapter: str) -> str | None:
    """Return the provider that a stage runs at, or None when it runs here.

    Args:
        kind: The stage's kind.
        adapter: The stage's adapter: for judges the whole reference, whose argument may be a hosted model.

    >>> provider_of(StageKind.TUNE, "local/sft") is None
    True
    """
    if kind is StageKind.SAMPLE:
        return None
    name = asked_of(adapter).provider if kind is StageKind.JUDGE else split_ref(adapter)[0]
    return name if name in registry.names(Kind.PROVIDER) else None


def access_of(name: str, account: Account) -> Access:
    """Return how an account is reached, with its provider's variable for the key where it names none.

    Args:
        name: The account's name in the spec.
        account: Its settings.
    """
    key_env = account.key_env or registry.adapter(Kind.PROVIDER, account.provider).key_env
    return Access(name, account.base_url, key_env, account.timeout)


@dataclass(frozen=True, slots=True)
class AskedModel:
    """What the reference of a judge that asks a model says: `JUDGE:PROVIDER:MODEL#FILE`.

    Attributes:
        provider: The model's provider.
        model: Its name there.
        file: A file of the user's for the judge; empty for none.
    """

    provider: str
    model: str
    file: str


def asked_of(judge: str) -> AskedModel:
    """Return which model a judge asks, by its reference.

    >>> asked_of("grader:acme/hosted:small-1#policies/mine.txt")
    AskedModel(provider='acme/hosted', model='small-1', file='policies/mine.txt')
    """
    reference, _, file = split_ref(judge)[1].partition("#")
    return AskedModel(*split_ref(reference), file)


def asking(judge: str) -> ApiJudge | None:
    """Return a judge with what its reference gives it, or None when it asks no model.

    Raises:
        OSError: The file in the reference cannot be read.
        ValueError: There is something wrong with it.
    """
    found = registry.adapter(Kind.JUDGE, judge)
    return found.given(asked_of(judge).file) if isinstance(found, ApiJudge) else None


def by_provider(accounts: Mapping[str, Account]) -> dict[str, str]:
    """Return the name of each provider's account; `engine.plan.check_hosted` has made sure that there is one."""
    return {account.provider: name for name, account in accounts.items()}


def accounts_of(stages: Mapping[str, Stage], accounts: Mapping[str, Account]) -> dict[str, str]:
    """Return the account of every stage that runs on one, by stage key."""
    if not accounts:
        return {}
    known, memo = by_provider(accounts), dict[tuple[StageKind, str], str | None]()
    found = {}
    for key, stage in stages.items():
        what = stage.kind, stage.adapter
        if what not in memo:
            memo[what] = provider_of(*what)
        if (provider := memo[what]) is not None:
            found[key] = known[provider]
    return found
