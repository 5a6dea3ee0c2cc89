CREATE TABLE slack_schema (version bigint NOT NULL);
INSERT INTO slack_schema VALUES (0);

CREATE TABLE slack_rows (
  partition text COLLATE "C" NOT NULL,
  slot text COLLATE "C" NOT NULL,
  version bytea NOT NULL CHECK (octet_length(version) = 16),
  metadata json NOT NULL,
  sealed bytea NOT NULL,
  lane text COLLATE "C" CHECK ((lane IS NULL) = (due_at IS NULL)),
  due_at bigint,
  PRIMARY KEY (partition, slot)
);

CREATE INDEX slack_rows_due
ON slack_rows (split_part(partition, '/', 1), lane, due_at, partition, slot)
WHERE lane IS NOT NULL;

-- Applies all changes of one partition, or none. Returns false if an expectation does not hold. An
-- expected version is '' if the row must not exist. The last six arrays are the rows to put.
CREATE FUNCTION slack_commit_1(
  at_partition text, clear boolean, expected_slots text[], expected bytea[], deleted text[],
  slots text[], versions bytea[], metadatas text[], sealeds bytea[], lanes text[],
  due_ats bigint[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  gone text;
BEGIN
  -- Each statement must see what was committed while this call waited for the lock.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'slack_commit_1 needs READ COMMITTED'
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  -- Commits of one partition run one after the other. Row locks alone cannot ensure that: a row
  -- that does not exist yet has no lock, and a clear cannot see a row that another commit will put.
  PERFORM pg_advisory_xact_lock(hashtextextended(at_partition COLLATE "C", 1397508430));
  -- Each slot is looked up by the whole key. Otherwise the planner may read the whole partition,
  -- because it expects few rows in one.
  -- Waits for statements that change rows by hand, without that lock.
  PERFORM FROM unnest(expected_slots || deleted || slots) AS named (slot), LATERAL (
    SELECT FROM slack_rows
    WHERE partition = at_partition AND slack_rows.slot = named.slot LIMIT 1 FOR UPDATE
  ) AS locked;
  IF EXISTS (
    SELECT FROM unnest(expected_slots, expected) AS change (slot, expected)
    LEFT JOIN LATERAL (
      SELECT slack_rows.slot, version FROM slack_rows
      WHERE partition = at_partition AND slack_rows.slot = change.slot LIMIT 1
    ) AS present ON true
    WHERE CASE WHEN present.slot IS NULL THEN change.expected <> ''
      ELSE change.expected = '' OR present.version <> change.expected END
  ) THEN
    RETURN false;
  END IF;
  IF clear THEN
    DELETE FROM slack_rows WHERE partition = at_partition;
  ELSE
    FOREACH gone IN ARRAY deleted LOOP
      DELETE FROM slack_rows WHERE partition = at_partition AND slot = gone;
    END LOOP;
  END IF;
  IF cardinality(slots) > 0 THEN
    INSERT INTO slack_rows (partition, slot, version, metadata, sealed, lane, due_at)
    SELECT at_partition, put.slot, put.version, put.metadata::json, put.sealed, put.lane,
      put.due_at
    FROM unnest(slots, versions, metadatas, sealeds, lanes, due_ats)
      AS put (slot, version, metadata, sealed, lane, due_at)
    ON CONFLICT (partition, slot) DO UPDATE SET version = excluded.version,
      metadata = excluded.metadata, sealed = excluded.sealed, lane = excluded.lane,
      due_at = excluded.due_at;
  END IF;
  RETURN true;
END
$$;

CREATE VIEW slack_installations AS
WITH facts AS NOT MATERIALIZED (
  SELECT partition, slot,
    -- json may hold this escape and text may not, so one such row would make the whole view fail.
    CASE WHEN strpos(metadata::text, '\u0000') = 0 THEN metadata ELSE '{}' END AS facts
  FROM slack_rows
)
SELECT
  split_part(install.partition, '/', 1) AS client_id,
  install.facts ->> 'app_id' AS app_id,
  install.facts ->> 'enterprise_id' AS enterprise_id,
  install.facts ->> 'enterprise_name' AS enterprise_name,
  install.facts ->> 'team_id' AS team_id,
  install.facts ->> 'team_name' AS team_name,
  (install.facts ->> 'is_enterprise_install')::boolean AS is_enterprise_install,
  install.facts ->> 'url' AS url,
  install.facts ->> 'installed_by' AS installed_by,
  to_timestamp((install.facts ->> 'installed_at')::double precision) AS installed_at,
  granted.facts ->> 'bot_user_id' AS bot_user_id,
  granted.facts ->> 'bot_id' AS bot_id,
  granted.facts ->> 'user_id' AS user_id,
  granted.facts ->> 'scopes' AS scopes,
  to_timestamp((granted.facts ->> 'granted_at')::double precision) AS granted_at,
  to_timestamp((granted.facts ->> 'expires_at')::double precision) AS expires_at
FROM facts AS install
LEFT JOIN facts AS granted ON granted.partition = install.partition
  AND granted.facts ->> 'kind' IN ('bot', 'user')
WHERE install.slot = 'install' AND install.facts ->> 'kind' = 'install';
