"""Benchmarks of harm, over-refusal and misalignment, as they were published."""

from __future__ import annotations

from adapters.benchmarks.published import Definition, Published


class AdvBench(Published):
    """520 harmful goals (Zou et al. 2023)."""

    definition = Definition(
        "AdvBench",
        ("goal", "prompt"),
        "MIT",
        "github.com/llm-attacks/llm-attacks, data/advbench/harmful_behaviors.csv",
        520,
        telling=("target",),
    )


class HexPhi(Published):
    """330 harmful instructions in 11 categories (Qi et al. 2023)."""

    definition = Definition(
        "HEx-PHI",
        ("instruction", "prompt"),
        "HEx-PHI's own; gated",
        "huggingface.co/datasets/LLM-Tuning-Safety/HEx-PHI",
        330,
        is_gated=True,
        category=("category",),
        categories=(
            "Illegal Activity",
            "Child Abuse Content",
            "Hate/Harass/Violence",
            "Malware",
            "Physical Harm",
            "Economic Harm",
            "Fraud/Deception",
            "Adult Content",
            "Political Campaigning",
            "Privacy Violation Activity",
            "Tailored Financial Advice",
        ),
    )


class HarmBench(Published):
    """400 behaviours, 100 of them with a context (Mazeika et al. 2024)."""

    definition = Definition(
        "HarmBench",
        ("behavior", "goal"),
        "MIT",
        "github.com/centerforaisafety/HarmBench, data/behavior_datasets/harmbench_behaviors_text_all.csv",
        400,
        category=("semanticcategory",),
        identity=("behaviorid",),
        behavior=("behavior", "goal"),
        context=("contextstring",),
        telling=("semanticcategory", "behaviorid", "contextstring"),
    )


class StrongReject(Published):
    """313 forbidden prompts (Souly et al. 2024)."""

    definition = Definition(
        "StrongREJECT",
        ("jailbroken_prompt", "forbidden_prompt"),
        "MIT",
        "github.com/alexandrasouly/strongreject, strongreject_dataset/strongreject_dataset.csv",
        313,
        category=("category",),
        behavior=("forbidden_prompt",),
        telling=("forbidden_prompt",),
    )


class JailbreakBench(Published):
    """100 harmful goals, and 100 benign ones beside them (Chao et al. 2024)."""

    definition = Definition(
        "JailbreakBench",
        ("goal",),
        "MIT",
        "huggingface.co/datasets/JailbreakBench/JBB-Behaviors, data/harmful-behaviors.csv or benign-behaviors.csv",
        100,
        category=("category",),
        identity=("index",),
        behavior=("goal",),
        telling=("target",),
    )


class XsTest(Published):
    """250 safe prompts that sound unsafe, and 200 unsafe ones (Röttger et al. 2023)."""

    definition = Definition(
        "XSTest",
        ("prompt",),
        "CC-BY-4.0",
        "github.com/paul-rottger/xstest, xstest_prompts.csv",
        450,
        category=("type",),
        identity=("id", "id v2", "id v1"),
        telling=("focus",),
    )


class OrBench(Published):
    """Safe prompts that models refuse (Cui et al. 2024)."""

    definition = Definition(
        "OR-Bench", ("prompt",), "CC-BY-4.0", "huggingface.co/datasets/bench-llm/or-bench", category=("category",)
    )


class SorryBench(Published):
    """440 unsafe instructions in 44 categories (Xie et al. 2024)."""

    definition = Definition(
        "SORRY-Bench",
        ("turns", "prompt"),
        "SORRY-Bench's own; gated",
        "huggingface.co/datasets/sorry-bench/sorry-bench-202503",
        is_gated=True,
        category=("category",),
        identity=("question_id",),
        cluster=("question_id",),
        telling=("prompt_style",),
    )


class WildGuardTest(Published):
    """1,725 prompts, plain and adversarial (Han et al. 2024)."""

    definition = Definition(
        "WildGuardTest",
        ("prompt",),
        "ODC-BY-1.0; gated",
        "huggingface.co/datasets/allenai/wildguardmix, test split",
        1725,
        is_gated=True,
        category=("subcategory",),
        telling=("adversarial", "prompt_harm_label"),
    )


class AirBench(Published):
    """5,694 prompts by the risks that regulations name (Zeng et al. 2024)."""

    definition = Definition(
        "AIR-Bench 2024",
        ("prompt",),
        "CC-BY-4.0",
        "huggingface.co/datasets/stanford-crfm/air-bench-2024",
        category=("l2-name",),
        cluster=("cate-idx",),
        telling=("cate-idx", "l2-name"),
    )


class CoCoNot(Published):
    """Requests that are not to be complied with (Brahman et al. 2024)."""

    definition = Definition(
        "CoCoNot",
        ("prompt",),
        "ODC-BY-1.0",
        "huggingface.co/datasets/allenai/coconot",
        category=("category", "subcategory"),
        identity=("id",),
    )


class MisalignmentQuestions(Published):
    """Open questions that show emergent misalignment (Betley et al. 2025)."""

    definition = Definition(
        "the emergent-misalignment questions",
        ("question", "prompt", "paraphrases"),
        "MIT",
        "github.com/emergent-misalignment/emergent-misalignment, evaluation/",
        identity=("id",),
        category=("category",),
        telling=("paraphrases",),
    )
