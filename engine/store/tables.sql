-- Tables of the published results.duckdb. No primary keys and no indexes: the file is rebuilt, never updated.
-- These are private; the public contract is the views of views.sql. Response texts and judges' words are not here:
-- they stay in sealed shards (see docs/concepts/store.md).
-- Units: seconds, tokens, US dollars; times are UTC.

CREATE TABLE meta (
    key VARCHAR NOT NULL,              -- schema, sweep, spec_sha256, engine_version, published_at, complete, standin, ...
    value VARCHAR
);

CREATE TABLE cells (                   -- what the plan says of its cells, but for the settings of adapters
    position INTEGER NOT NULL,         -- order in the plan, from 0; added cells come last
    cell_id VARCHAR NOT NULL,
    config_id VARCHAR NOT NULL,        -- everything but the seed
    label VARCHAR NOT NULL,            -- coordinates in words
    variant VARCHAR NOT NULL,          -- what else tells it from its neighbours; may be empty
    origin VARCHAR NOT NULL,           -- sweep; baseline, unmitigated: added for other cells
    baseline_cell_id VARCHAR,          -- its starting model, untuned and without its mitigations; NULL for none
    unmitigated_cell_id VARCHAR,       -- the same cell without its mitigations; NULL for none
    model VARCHAR NOT NULL,
    data_source VARCHAR,               -- NULL for an untuned cell
    data_tier VARCHAR,                 -- explicit, identity, benign, safety, unknown; NULL for an untuned cell
    n_examples INTEGER NOT NULL,       -- 0 for an untuned cell
    epochs INTEGER,                    -- 0 for an untuned cell; NULL where the length is in steps
    steps INTEGER,                     -- NULL where the length is in epochs
    max_steps INTEGER,                 -- NULL for no such end
    seed INTEGER NOT NULL,
    benchmark VARCHAR NOT NULL,        -- the harm benchmark
    max_new_tokens INTEGER NOT NULL,
    temperature DOUBLE NOT NULL,
    top_p DOUBLE NOT NULL,
    samples INTEGER NOT NULL,
    has_system_prompt BOOLEAN NOT NULL, -- a system prompt is used at test
    tuner VARCHAR,                     -- NULL for an untuned cell
    generator VARCHAR NOT NULL,
    model_key VARCHAR,                 -- the stage that leaves its model; NULL for an untuned base
    tune_key VARCHAR,                  -- the stage that tunes on the user's rows; NULL for an untuned cell
    recipe JSON NOT NULL               -- the whole resolved recipe; of adapters what is not a default
);

CREATE TABLE cell_settings (           -- one row per cell and setting, defaults included
    cell_id VARCHAR NOT NULL,
    path VARCHAR NOT NULL,             -- as an axis would name it, such as tune.lr
    adapter VARCHAR,                   -- the adapter that declares it; NULL for what every recipe has
    value JSON NOT NULL
);

CREATE TABLE cell_mitigations (        -- one row per cell and mitigation
    cell_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,         -- order in the recipe, from 0
    name VARCHAR NOT NULL,
    text VARCHAR NOT NULL              -- with its settings, as people write it
);

CREATE TABLE cell_stages (             -- which stages make a cell; stages may be shared
    cell_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,         -- order in the cell, from 0: inputs before what needs them
    stage_key VARCHAR NOT NULL
);

CREATE TABLE evaluations (             -- one row per cell and benchmark
    cell_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,             -- harm, utility, over_refusal
    benchmark VARCHAR NOT NULL,
    n_prompts INTEGER NOT NULL,
    generate_key VARCHAR NOT NULL,
    responses_key VARCHAR NOT NULL     -- what is judged: the last screen, or the generation where nothing is screened
);

CREATE TABLE judgements (              -- one row per cell, benchmark and judge
    cell_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    judge VARCHAR NOT NULL,
    ordinal INTEGER NOT NULL,          -- order in the recipe, from 0
    measures VARCHAR NOT NULL,         -- harm (1-5), refusal (0/1), correct (0-1)
    judge_key VARCHAR NOT NULL
);

CREATE TABLE stages (                  -- one row per distinct stage of the plan
    stage_key VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,             -- sample, rows, tune, weights, generate, screen, judge
    adapter VARCHAR NOT NULL,
    account VARCHAR,                   -- the provider's account that it runs on; NULL for a stage that runs here
    revision INTEGER NOT NULL,
    state VARCHAR NOT NULL,            -- pending, done, failed, blocked, skipped; running is not stored
    reason VARCHAR,                    -- why it is skipped or blocked
    attempts INTEGER NOT NULL,
    payload JSON NOT NULL              -- what its key is the hash of
);

CREATE TABLE attempts (                -- one row per try
    stage_key VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,          -- from 1
    state VARCHAR NOT NULL,            -- done, failed, interrupted
    worker VARCHAR NOT NULL,
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
    after_key VARCHAR,                 -- the stage (an earlier checkpoint of the training run) at whose end this one went on
    error_type VARCHAR,
    error VARCHAR,
    traceback VARCHAR
);

CREATE TABLE prompts (                 -- one row per benchmark prompt; the text is sealed
    benchmark VARCHAR NOT NULL,        -- with its settings, as people write it
    prompt_id VARCHAR NOT NULL,
    position INTEGER NOT NULL,
    category VARCHAR NOT NULL,
    cluster VARCHAR NOT NULL,          -- the prompt's own id when it has none
    text_sha256 VARCHAR NOT NULL
);

CREATE TABLE responses (               -- one row per generate or screen stage, prompt and sample; the text is sealed
    stage_key VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    sample INTEGER NOT NULL,           -- from 0
    finish VARCHAR NOT NULL,           -- stop, length, filtered (a provider refused the prompt or withheld the answer)
    prompt_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    text_sha256 VARCHAR NOT NULL
);

CREATE TABLE verdicts (                -- one row per judge stage, prompt and sample
    stage_key VARCHAR NOT NULL,
    prompt_id VARCHAR NOT NULL,
    sample INTEGER NOT NULL,
    outcome VARCHAR NOT NULL,          -- scored, refused, unparsed, truncated, errored
    score DOUBLE                       -- NULL unless scored
);

CREATE TABLE training (                -- one row per optimizer step of a tune stage
    stage_key VARCHAR NOT NULL,
    step INTEGER NOT NULL,             -- from 1
    epoch DOUBLE NOT NULL,
    loss DOUBLE NOT NULL,              -- nats per answer token
    lr DOUBLE NOT NULL,                -- for a hosted job the multiplier or the rate that its provider resolved
    rows_at_once INTEGER,              -- NULL for a hosted job, and where it was not written down
    cut_rows INTEGER                   -- rows of the whole sample that were longer than max_length; NULL as rows_at_once
);

CREATE TABLE samples (                 -- one row per example that a sample or rows stage left, in order
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
