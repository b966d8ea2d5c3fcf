-- submit_check(): what makes no sense is refused by its name and its value, before anything is written.
DROP FUNCTION IF EXISTS submit_check(text, text[], text, text, integer, interval, jsonb, jsonb, jsonb);
CREATE OR REPLACE FUNCTION submit_check(
    p_run_id text, p_argv text[], p_command text, p_queue text, p_priority integer, p_after interval,
    p_labels jsonb, p_env jsonb, p_meta jsonb,
    p_timeout interval, p_stall_timeout interval, p_max_attempts integer, p_backoff interval, p_crashes_max integer
) RETURNS void
LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    v_wrong text := CASE
        -- A bounded repetition in a pattern costs ten times as much.
        WHEN p_run_id !~ '^[A-Za-z0-9][A-Za-z0-9._:@-]*$' OR length(p_run_id) > 200 OR p_run_id IS NULL
            THEN format('%L is not a run id: letters, digits and ._:@-, up to 200', left(p_run_id, 60))
        WHEN p_queue !~ '^[A-Za-z0-9][A-Za-z0-9._:@-]*$' OR length(p_queue) > 100 OR p_queue IS NULL
            THEN format('%L is not the name of a queue: letters, digits and ._:@-, up to 100', left(p_queue, 60))
        WHEN (p_command IS NULL) = (p_argv IS NULL)
            THEN 'a run needs either an argv or the name of a command'
        WHEN p_argv IS NOT NULL AND (cardinality(p_argv) = 0 OR array_position(p_argv, NULL) IS NOT NULL OR p_argv[1] = '')
            THEN 'argv needs a program first, and no NULL'
        WHEN p_priority IS NULL OR p_priority NOT BETWEEN -1000 AND 1000
            THEN format('priority is %s, but should be between -1000 and 1000', p_priority)
        WHEN p_after IS NULL OR p_after NOT BETWEEN interval '0' AND interval '366 days'
            THEN format('after is %s, but should be between 0 and 366 days', p_after)
        WHEN p_timeout <= interval '0' THEN format('timeout is %s, but should be longer than nothing', p_timeout)
        WHEN p_stall_timeout <= interval '0' THEN format('stall_timeout is %s, but should be longer than nothing', p_stall_timeout)
        WHEN p_max_attempts IS NULL OR p_max_attempts < 1
            THEN format('max_attempts is %s, but should be 1 or more', p_max_attempts)
        WHEN p_backoff IS NULL OR p_backoff < interval '0' THEN format('backoff is %s, but should be 0 or more', p_backoff)
        WHEN p_crashes_max IS NULL OR p_crashes_max < 1 THEN format('crashes_max is %s, but should be 1 or more', p_crashes_max)
        WHEN NOT is_flat(p_labels) THEN format('labels are %s, but should be an object of texts', left(p_labels::text, 60))
        WHEN EXISTS (SELECT FROM jsonb_object_keys(p_labels) AS key WHERE key LIKE 'systole:%')
            THEN 'labels beginning with systole: are systole''s own'
        -- Its values may be secrets.
        WHEN NOT is_flat(p_env) THEN 'env should be an object of texts'
        WHEN EXISTS (SELECT FROM jsonb_object_keys(p_env) AS key WHERE key = '' OR key LIKE '%=%')
            THEN 'a name in env is empty, or has a = in it'
        WHEN length(p_env::text) + coalesce(length(p_argv::text), 0) > 131072 THEN 'argv and env together are larger than 128 KiB'
        WHEN length(p_meta::text) > 65536 THEN 'meta is larger than 64 KiB'
    END;
BEGIN
    IF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', v_wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION is_flat(p_object jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT CASE WHEN jsonb_typeof(p_object) = 'object'
                THEN NOT EXISTS (SELECT FROM jsonb_each(p_object) WHERE jsonb_typeof(value) <> 'string') ELSE false END
$$;
