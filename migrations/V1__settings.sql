-- Tables are created in the first schema of search_path, which the migrator sets.

CREATE TABLE settings (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fleet_id          uuid NOT NULL DEFAULT gen_random_uuid(),
    functions_version integer NOT NULL DEFAULT 0,
    functions_digest  text NOT NULL DEFAULT '',
    stale_after_max   interval NOT NULL DEFAULT '10 minutes',
    fence_floor       bigint NOT NULL DEFAULT 0 CHECK (fence_floor >= 0)
);
COMMENT ON TABLE settings IS
    'One row: what holds for the whole fleet. fleet_id names this database in certificates of death, '
    'so that one is never filed with a stranger. No fence is ever granted at or below fence_floor.';
INSERT INTO settings DEFAULT VALUES;

CREATE TABLE takeover_brake (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    looked_at   timestamptz NOT NULL DEFAULT '-infinity',
    hosts       integer NOT NULL DEFAULT 0,
    hosts_stale integer NOT NULL DEFAULT 0,
    engaged     boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE takeover_brake IS
    'One row: how many hosts looked silent at the last look, refreshed by claims at most once a second. '
    'While engaged, a takeover by age waits twice stale_after; proofs of death do not wait.';
INSERT INTO takeover_brake DEFAULT VALUES;
