-- state.sqlite as of 0.2.0: the control plane. The driver alone writes it; a commit here is the moment a result counts.
-- A table that tables.sql has too has all of its columns, by the same names.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);

-- What the newest plan says of its cells. Settings of adapters are rows: a new one needs no new column. Cells share most of
-- them, so that each is here once, and `cells.settings` is a JSON list of their numbers.
CREATE TABLE cells (
    position INTEGER PRIMARY KEY, cell_id TEXT NOT NULL UNIQUE, config_id TEXT NOT NULL, label TEXT NOT NULL,
    variant TEXT NOT NULL, origin TEXT NOT NULL, baseline_cell_id TEXT, unmitigated_cell_id TEXT, model TEXT NOT NULL,
    data_source TEXT, data_tier TEXT, n_examples INTEGER NOT NULL, epochs INTEGER, steps INTEGER, max_steps INTEGER,
    seed INTEGER NOT NULL, benchmark TEXT NOT NULL, max_new_tokens INTEGER NOT NULL, temperature REAL NOT NULL,
    top_p REAL NOT NULL, samples INTEGER NOT NULL, has_system_prompt INTEGER NOT NULL, tuner TEXT,
    generator TEXT NOT NULL, model_key TEXT, tune_key TEXT, recipe TEXT NOT NULL, settings TEXT NOT NULL
);

CREATE TABLE settings (setting_id INTEGER PRIMARY KEY, path TEXT NOT NULL, adapter TEXT, value TEXT NOT NULL);

CREATE TABLE cell_mitigations (
    cell_id TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL
);

CREATE TABLE cell_stages (cell_id TEXT NOT NULL, position INTEGER NOT NULL, stage_key TEXT NOT NULL);

CREATE TABLE evaluations (
    cell_id TEXT NOT NULL, role TEXT NOT NULL, benchmark TEXT NOT NULL, n_prompts INTEGER NOT NULL,
    generate_key TEXT NOT NULL, responses_key TEXT NOT NULL
);

CREATE TABLE judgements (
    cell_id TEXT NOT NULL, role TEXT NOT NULL, judge TEXT NOT NULL, ordinal INTEGER NOT NULL, measures TEXT NOT NULL,
    judge_key TEXT NOT NULL
);

CREATE TABLE pins (kind TEXT NOT NULL, ref TEXT NOT NULL, pin TEXT NOT NULL, detail TEXT NOT NULL);

-- Stages of every plan that this directory has seen; `planned` marks those of the newest.
CREATE TABLE stages (
    stage_key TEXT PRIMARY KEY, kind TEXT NOT NULL, adapter TEXT NOT NULL, account TEXT, revision INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT, attempts INTEGER NOT NULL, payload TEXT NOT NULL, inputs TEXT NOT NULL,
    planned INTEGER NOT NULL, artifact TEXT
) WITHOUT ROWID;

CREATE TABLE attempts (
    stage_key TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, worker TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL, optimizer_steps INTEGER NOT NULL, train_tokens INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, generated_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    possibly_billed_prompt_tokens INTEGER NOT NULL, possibly_billed_generated_tokens INTEGER NOT NULL,
    device_seconds REAL NOT NULL, usd TEXT, possibly_billed_usd TEXT, after_key TEXT, error_type TEXT, error TEXT,
    traceback TEXT, PRIMARY KEY (stage_key, attempt)
) WITHOUT ROWID;

-- Parquet files that count. A file that is not here does not exist, whatever the disk says.
-- One file may hold rows of several stages that ended together; then each has a row here.
CREATE TABLE shards (
    path TEXT NOT NULL, table_name TEXT NOT NULL, stage_key TEXT NOT NULL, sha256 TEXT NOT NULL, rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (path, stage_key)
) WITHOUT ROWID;

CREATE INDEX shards_by_stage ON shards (stage_key);
