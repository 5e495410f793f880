-- The bill
-- Answers: Where did the money and the time go? Every distinct stage of this plan counts once, failed tries included.
-- Columns:
--   kind: sample, rows, tune, weights, generate, screen or judge
--   adapter: what did the work
--   n_stages: distinct stages (count)
--   n_done: of which done (count)
--   n_attempts: tries (count)
--   uses: cells that these stages serve, summed over stages (count)
--   train_tokens: tokens trained on (count)
--   prompt_tokens: tokens read (count)
--   generated_tokens: tokens generated (count)
--   cached_tokens: of the tokens read, those billed as cached (count)
--   possibly_billed_tokens: read and generated, at most, for requests whose reply never came; in no other count (count)
--   device_seconds: device time (seconds)
--   lost_device_seconds: of which in attempts that did not succeed (seconds)
--   usd: US dollars for what was surely used; empty when the price of a stage that ran is unknown
--   possibly_billed_usd: US dollars besides, at most, for these tokens; empty when their price is unknown
SELECT kind, adapter, count(*) AS n_stages, count(*) FILTER (state = 'done') AS n_done,
    sum(n_attempts)::BIGINT AS n_attempts, sum(n_cells)::BIGINT AS uses, sum(train_tokens)::BIGINT AS train_tokens,
    sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(generated_tokens)::BIGINT AS generated_tokens,
    sum(cached_tokens)::BIGINT AS cached_tokens,
    sum(possibly_billed_prompt_tokens + possibly_billed_generated_tokens)::BIGINT AS possibly_billed_tokens,
    sum(device_seconds) AS device_seconds, sum(lost_device_seconds) AS lost_device_seconds,
    CASE WHEN count(usd) = count(*) FILTER (n_attempts > 0) THEN sum(usd) END AS usd,
    CASE WHEN count(possibly_billed_usd) = count(*) FILTER (n_attempts > 0) THEN sum(possibly_billed_usd) END AS possibly_billed_usd
FROM v_cost GROUP BY kind, adapter ORDER BY device_seconds DESC, kind, adapter
