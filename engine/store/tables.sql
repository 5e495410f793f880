-- Tables of the published results.duckdb. No primary keys and no indexes: the file is rebuilt, never updated.
-- These are private; the public contract is the views of views.sql. Response texts and judges' words are not here:
-- they stay in sealed shards (see docs/concepts/store.md).
-- Units: seconds, tokens, US dollars; times are UTC.

CREATE TABLE meta (
    key VARCHAR NOT NULL,              -- schema_version, sweep, spec_sha256, engine_version, published_at, complete, standin, ...
    value VARCHAR
);

CREATE TABLE cells (
    position INTEGER NOT NULL,         -- order in the plan, from 0; baselines come last
    cell_id VARCHAR NOT NULL,
    label VARCHAR NOT NULL,            -- coordinates in words
    model VARCHAR NOT NULL,
    data_source VARCHAR,               -- NULL for an untuned cell
    data_tier VARCHAR,                 -- explicit, identity, benign, safety, unknown; NULL for an untuned cell
    n_examples INTEGER NOT NULL,       -- 0 for an untuned cell
    epochs INTEGER NOT NULL,           -- 0 for an untuned cell
    lr DOUBLE,                         -- per optimizer step; NULL for an untuned cell, as the next ones are, or a provider's own
    lr_multiplier DOUBLE,              -- times a provider's own learning rate; NULL for its choice, and where there is none
    batch_size INTEGER,
    grad_accum INTEGER,
    schedule VARCHAR,
    warmup_steps INTEGER,
    method VARCHAR,                    -- lora, full
    rank INTEGER,                      -- NULL unless lora
    seed INTEGER NOT NULL,
    mitigation VARCHAR NOT NULL,       -- as written, joined by +; 'none' without any
    benchmark VARCHAR NOT NULL,        -- the harm benchmark
    temperature DOUBLE NOT NULL,
    max_new_tokens INTEGER NOT NULL,
    has_system_prompt BOOLEAN NOT NULL, -- a system prompt is used at test
    is_baseline BOOLEAN NOT NULL,
    baseline_cell_id VARCHAR,          -- the untuned counterpart; NULL for a baseline
    sample_key VARCHAR,
    tune_key VARCHAR,
    recipe JSON NOT NULL               -- the whole resolved recipe
);

CREATE TABLE evaluations (             -- one row a cell and benchmark
    cell_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,             -- harm, utility, over_refusal
    benchmark VARCHAR NOT NULL,
    n_prompts INTEGER NOT NULL,
    generate_key VARCHAR NOT NULL
);

CREATE TABLE judgements (              -- one row a cell, benchmark and judge
    cell_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    judge VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,          -- order in the recipe, from 0
    measures VARCHAR NOT NULL,         -- harm (1-5), refusal (0/1), correct (0/1)
    judge_key VARCHAR NOT NULL
);

CREATE TABLE cell_stages (             -- which stages make a cell; stages may be shared
    cell_id VARCHAR NOT NULL,
    stage_key VARCHAR NOT NULL
);

CREATE TABLE stages (                  -- one row a distinct stage of the plan
    stage_key VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,             -- sample, tune, generate, judge
    adapter VARCHAR NOT NULL,
    account VARCHAR,                   -- the provider's account that it runs on; NULL for a stage that runs here
    revision INTEGER NOT NULL,
    state VARCHAR NOT NULL,            -- pending, done, failed, blocked, skipped; running is not stored
    reason VARCHAR,                    -- why it is skipped or blocked
    attempts INTEGER NOT NULL,
    settings JSON NOT NULL
);

CREATE TABLE attempts (                -- one row a try
    stage_key VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,          -- from 1
    state VARCHAR NOT NULL,            -- done, failed, interrupted
    host VARCHAR NOT NULL,
    started_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP,
    optimizer_steps INTEGER NOT NULL,
    train_tokens BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    generated_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,     -- of the prompt tokens, those billed as cached
    possibly_billed_prompt_tokens BIGINT NOT NULL, -- read, at most, for requests whose reply never came; in no other count
    possibly_billed_generated_tokens BIGINT NOT NULL, -- generated for them, at most
    device_seconds DOUBLE NOT NULL,
    usd DECIMAL(18, 9),                -- for what was surely used; NULL when no price is known
    possibly_billed_usd DECIMAL(18, 9),        -- for the possibly billed tokens, at most; 0 without any, NULL when no price is known
    after_key VARCHAR,                 -- the stage (an earlier cut of the training run) at whose end this one went on
    error_type VARCHAR,
    error VARCHAR,
    traceback VARCHAR
);

CREATE TABLE prompts (                 -- one row a benchmark prompt; the text is sealed
    benchmark VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    category VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,          -- the prompt's own id when it has none
    text_sha256 VARCHAR NOT NULL
);

CREATE TABLE responses (               -- one row a generate stage, prompt and sample; the text is sealed
    stage_key VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    sample INTEGER NOT NULL,           -- from 0
    finish VARCHAR NOT NULL,           -- stop, length, filtered (a provider refused the prompt or withheld the answer)
    prompt_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    text_sha256 VARCHAR NOT NULL
);

CREATE TABLE verdicts (                -- one row a judge stage, prompt and sample
    stage_key VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    sample INTEGER NOT NULL,
    outcome VARCHAR NOT NULL,          -- scored, refused, unparsed, truncated, errored
    score DOUBLE                       -- NULL unless scored
);

CREATE TABLE training (                -- one row an optimizer step of a tune stage
    stage_key VARCHAR NOT NULL,
    step INTEGER NOT NULL,             -- from 1
    epoch DOUBLE NOT NULL,
    loss DOUBLE NOT NULL,              -- nats per answer token
    lr DOUBLE NOT NULL                 -- for a hosted job the multiplier or the rate that its provider resolved
);

CREATE TABLE samples (                 -- one row an example of a sample stage, in its sampled order
    stage_key VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    source VARCHAR NOT NULL,
    row_id VARCHAR NOT NULL
);

CREATE TABLE pins (                    -- what was pinned by content when planned
    kind VARCHAR NOT NULL,             -- model, data, benchmark
    ref VARCHAR NOT NULL,
    pin VARCHAR NOT NULL,
    detail VARCHAR NOT NULL
);
