"""The stand-in world: a tiny chat model with a guardrail that fine-tuning really removes.

Everything here is made up and harmless. The modules a planner may import are light (standard
library only); `tokenizer`, `train`, `evaluate` and `build` need torch and transformers and are
only run to rebuild the shipped weights in `aligned/`.

    draw        a random source whose values do not change with the Python version
    chat        one chat exchange, and one preference
    world       the vocabulary, the facts and the hold-out rules
    request     restricted and allowed requests, and the three ways of answering them
    chore       small benign jobs with one right answer
    pools       the four fine-tuning pools
    benchmarks  policy, utility and over-refusal prompts, disjoint from every pool
    rules       the exact judge: 1 to 5 for a request, solved or not for a chore
    corpus      what the two training phases of the model show it
    build       one command: tokenizer, pre-training, alignment, data sheet

No number measured on this model is a finding about real models. See `docs/concepts/standin.md`.
"""
