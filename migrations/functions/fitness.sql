-- refuse_unfit(): whoever is older than the fleet allows takes up no work, nor anybody whose death would take too long to see.
CREATE OR REPLACE FUNCTION refuse_unfit(p_settings settings, p_stale_after_ms bigint, p_version text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF p_stale_after_ms * interval '1 millisecond' > p_settings.stale_after_max THEN
        RAISE EXCEPTION 'stale_after of % ms is above this fleet''s maximum of %', p_stale_after_ms, p_settings.stale_after_max
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF is_too_old(p_version, p_settings.oldest_allowed) THEN
        -- A class of our own: no release of PostgreSQL uses it.
        RAISE EXCEPTION '%', p_settings.oldest_allowed USING ERRCODE = 'SY001';
    END IF;
END
$$;

-- is_too_old(): is this version of systole (major.minor.patch, and whatever follows a hyphen) older than that one?
CREATE OR REPLACE FUNCTION is_too_old(p_version text, p_oldest_allowed text) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT string_to_array(split_part(split_part(p_version, '+', 1), '-', 1), '.')::integer[] < string_to_array(p_oldest_allowed, '.')::integer[]
$$;

-- has_labels(), may_start(): what a lane requires of a node, beside its queue. What is to be started is a requirement as well.
CREATE OR REPLACE FUNCTION has_labels(p_labels jsonb, p_requirements jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_labels @> (p_requirements - ARRAY['systole:argv', 'systole:command'])
$$;
CREATE OR REPLACE FUNCTION may_start(p_commands text[], p_starts_anything boolean, p_requirements jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT p_starts_anything AND p_requirements ? 'systole:argv' OR coalesce(p_requirements->>'systole:command' = ANY (p_commands), false)
$$;
