-- state.sqlite: the control plane. The driver alone writes it; a commit here is the moment a result counts.
-- Tables that tables.sql has too have the same columns in the same order, so that publishing copies them as they are.

CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT);

CREATE TABLE IF NOT EXISTS cells (
    position INTEGER PRIMARY KEY, cell_id TEXT NOT NULL UNIQUE, label TEXT NOT NULL, model TEXT NOT NULL,
    data_source TEXT, data_tier TEXT, n_examples INTEGER NOT NULL, epochs INTEGER NOT NULL, lr REAL, lr_multiplier REAL,
    batch_size INTEGER, grad_accum INTEGER, schedule TEXT, warmup_steps INTEGER, method TEXT, rank INTEGER,
    seed INTEGER NOT NULL, mitigation TEXT NOT NULL, benchmark TEXT NOT NULL, temperature REAL NOT NULL,
    max_new_tokens INTEGER NOT NULL, has_system_prompt INTEGER NOT NULL, is_baseline INTEGER NOT NULL,
    baseline_cell_id TEXT, sample_key TEXT, tune_key TEXT, recipe TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS evaluations (
    cell_id TEXT NOT NULL, role TEXT NOT NULL, benchmark TEXT NOT NULL, n_prompts INTEGER NOT NULL,
    generate_key TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS judgements (
    cell_id TEXT NOT NULL, role TEXT NOT NULL, judge TEXT NOT NULL, ordinal INTEGER NOT NULL, measures TEXT NOT NULL,
    judge_key TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS cell_stages (cell_id TEXT NOT NULL, stage_key TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS pins (kind TEXT NOT NULL, ref TEXT NOT NULL, pin TEXT NOT NULL, detail TEXT NOT NULL);

-- Stages of every plan that this directory has seen; `planned` marks those of the newest.
CREATE TABLE IF NOT EXISTS stages (
    stage_key TEXT PRIMARY KEY, kind TEXT NOT NULL, adapter TEXT NOT NULL, account TEXT, revision INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT, attempts INTEGER NOT NULL, settings TEXT NOT NULL,
    inputs TEXT NOT NULL, planned INTEGER NOT NULL, artifact TEXT
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS attempts (
    stage_key TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, host TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL, optimizer_steps INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, generated_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    possibly_billed_prompt_tokens INTEGER NOT NULL, possibly_billed_generated_tokens INTEGER NOT NULL, device_seconds REAL NOT NULL,
    usd TEXT, possibly_billed_usd TEXT, after_key TEXT, error_type TEXT, error TEXT, traceback TEXT,
    PRIMARY KEY (stage_key, attempt)
) WITHOUT ROWID;

-- Parquet files that count. A file that is not here does not exist, whatever the disk says.
-- One file may hold rows of several stages that ended together; then each has a row here.
CREATE TABLE IF NOT EXISTS shards (
    path TEXT NOT NULL, table_name TEXT NOT NULL, stage_key TEXT NOT NULL, sha256 TEXT NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (path, stage_key)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS shards_by_stage ON shards (stage_key);
