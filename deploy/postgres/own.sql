-- Hands an existing schema and all that is in it to systole_owner. As a superuser, or as its owner and a member of
-- systole_owner. `systole migrate --roles` does it where it is needed. By hand: psql -1 -f own.sql -f grants.sql, in one
-- transaction, because whoever works as the former owner has only the rights of a role from then on.
DO $$
DECLARE
    v_object text;
BEGIN
    EXECUTE format('ALTER SCHEMA %I OWNER TO systole_owner', 'systole');
    FOR v_object IN
        SELECT format('TABLE %s', c.oid::regclass) FROM pg_class c
         WHERE c.relnamespace = 'systole'::regnamespace AND c.relkind = 'r'
         UNION ALL
        SELECT format('FUNCTION %s', p.oid::regprocedure) FROM pg_proc p WHERE p.pronamespace = 'systole'::regnamespace
    LOOP
        EXECUTE format('ALTER %s OWNER TO systole_owner', v_object);
    END LOOP;
END
$$;
