"""Which stages run on which account: those whose model, or whose judge's model, is at a provider."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial

from engine import registry
from engine.domain.adapters import Kind, Use
from engine.domain.stage import GenerateWork, JudgeWork, Stage, TuneWork
from engine.domain.sweep import Account
from engine.ports.provider import Access


def hosted_model(stage: Stage) -> Use | None:
    """Return the hosted model that a stage works with, or None when it runs here."""
    work = stage.work
    model = None
    if isinstance(work, TuneWork | GenerateWork):
        model = work.base.use
    elif isinstance(work, JudgeWork):
        model = work.model
    return model if model is not None and is_hosted(model) else None


def is_hosted(model: Use) -> bool:
    """Tell whether a model is at a provider: its adapter has the provider's name."""
    return model.name in registry.names(Kind.PROVIDER)


def account_of(model: Use, accounts: Mapping[str, Account]) -> str | None:
    """Return the account of a hosted model: the one that it names, or else its provider's only one; None for no such."""
    owners = [name for name, account in accounts.items() if account.provider == model.name]
    if model.account:
        return model.account if model.account in owners else None
    return owners[0] if len(owners) == 1 else None


def access_of(name: str, account: Account) -> Access:
    """Return how an account of that name is reached, with its provider's variable for the key where it names none."""
    key_env = account.key_env or registry.adapter(Kind.PROVIDER, account.provider).key_env
    return Access(name, account.base_url, key_env, account.timeout)


def accounts_of(stages: Mapping[str, Stage], accounts: Mapping[str, Account]) -> dict[str, str]:
    """Return the account of every stage that runs on one, by stage key; `engine.plan.check_hosted` saw that there is one."""
    if not accounts:
        return {}
    owner = cache(partial(account_of, accounts=accounts))
    models = ((key, hosted_model(stage)) for key, stage in stages.items())
    owners = ((key, owner(model)) for key, model in models if model is not None)
    return {key: account for key, account in owners if account is not None}
