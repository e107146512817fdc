-- A pause empties the buckets also when a longer one is under way. Of many calls that are refused at
-- once only the longest pause did, and what the others gave back left together when it was over.

-- One turn of one process at one pool: tells what happened since its last one, and takes.
--
-- `p_configured` is what a new pool begins with, and what one changes to when `p_joins`. `p_slots`
-- is how many attempts of this process are on their way, `p_output` what output they took, and
-- `p_overuse` by how much such attempts use more than they took: three means, and three spreads that
-- grow with the root of their number. So much of a bucket is kept back. `p_ahead` says that the first of
-- `p_wants` (three numbers each) took ahead before and still waits. `p_back` is added to the
-- levels. `p_said` is what headers said: three limits, three remainders, and the places at which
-- the request they speak of had been taken; NULL where nothing is known. `p_pause_s` is a pause.
--
-- Returns how many of the wants were admitted, from the first on; the seconds until the next one
-- may be (NULL: until an attempt ends); whether it took ahead; and the pool as it is now.
CREATE OR REPLACE FUNCTION llm_integrations.limit_turn(
    p_pool text, p_owner text, p_configured double precision[], p_joins boolean, p_slots bigint,
    p_output bigint, p_overuse double precision[],
    p_ahead boolean, p_back bigint[], p_said bigint[], p_pause_s double precision,
    p_wants bigint[],
    OUT r_admitted bigint, OUT r_wait double precision, OUT r_ahead boolean,
    OUT r_capacity double precision[], OUT r_level double precision[], OUT r_taken bigint[],
    OUT r_output bigint, OUT r_paused double precision, OUT r_learned double precision
) LANGUAGE plpgsql AS $$
DECLARE
    v_pool llm_integrations.limit_pool;
    v_part llm_integrations.limit_part;
    v_now timestamptz;
    v_capacity double precision[];
    v_before double precision[];
    v_elapsed double precision;
    v_others bigint;        -- attempts of other processes on their way
    v_output bigint;        -- what output they took
    v_heads bigint;         -- heads of other processes that took ahead
    v_first bigint;         -- those of them that are before ours
    v_ahead bigint[];       -- what all that took ahead still wait for
    v_kept double precision[] := '{0,0,0}';
    v_short double precision;
    v_left double precision;
    v_is_new boolean := false;
    v_tell boolean := false;
    v_next bigint := 0;
    v_count bigint := coalesce(array_length(p_wants, 1), 0) / 3;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '5s', true);
    SELECT * INTO v_pool FROM llm_integrations.limit_pool WHERE name = p_pool FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO llm_integrations.limit_pool (name, configured, level, refilled_at)
        VALUES (p_pool, p_configured, p_configured[1:3], clock_timestamp())
        ON CONFLICT DO NOTHING;
        SELECT * INTO v_pool FROM llm_integrations.limit_pool WHERE name = p_pool FOR UPDATE;
    END IF;
    v_now := clock_timestamp();

    SELECT * INTO v_part FROM llm_integrations.limit_part WHERE pool = p_pool AND owner = p_owner;
    v_is_new := NOT FOUND;
    SELECT coalesce(sum(slots), 0), coalesce(sum(output), 0), count(want),
           ARRAY[coalesce(sum(want[1]), 0), coalesce(sum(want[2]), 0), coalesce(sum(want[3]), 0)]
    INTO v_others, v_output, v_heads, v_ahead
    FROM llm_integrations.limit_part WHERE pool = p_pool AND owner <> p_owner;
    IF v_part.want IS NOT NULL AND NOT p_ahead THEN
        PERFORM llm_integrations.limit_leave(p_pool, p_owner);
        v_part.want := NULL;
        SELECT * INTO v_pool FROM llm_integrations.limit_pool WHERE name = p_pool;
    END IF;
    FOR d IN 1..3 LOOP
        v_ahead[d] := v_ahead[d] + coalesce(v_part.want[d], 0);
    END LOOP;
    -- What lies ahead although no pause put it there, or an hour and more: the clock went back.
    v_pool.paused_until := least(v_pool.paused_until, v_now + interval '61 minutes');
    v_pool.refilled_at := least(v_pool.refilled_at, greatest(v_now, v_pool.paused_until));
    v_pool.learned_at := least(v_pool.learned_at, v_now);
    v_tell := v_heads > 0 AND p_slots < coalesce(v_part.slots, 0);

    -- 1. Refill, and take back.
    v_before := ARRAY[least(v_pool.configured[1], v_pool.learned[1]),
                      least(v_pool.configured[2], v_pool.learned[2]),
                      least(v_pool.configured[3], v_pool.learned[3]), v_pool.configured[4]];
    v_elapsed := greatest(0, extract(epoch FROM v_now - v_pool.refilled_at));
    FOR d IN 1..3 LOOP
        v_pool.level[d] := least(
            v_before[d] - v_ahead[d], v_pool.level[d] + v_elapsed * v_before[d] / 60);
        v_pool.level[d] := least(v_before[d] - v_ahead[d], v_pool.level[d] + p_back[d]);
    END LOOP;
    v_pool.refilled_at := greatest(v_pool.refilled_at, v_now);

    -- 2. Learn. An answer to an older request than the last one teaches nothing.
    IF p_joins THEN
        v_pool.configured := p_configured;
    END IF;
    IF p_said IS NOT NULL THEN
        v_pool.learned_at := v_now;
        FOR d IN 1..3 LOOP
            v_pool.learned[d] := coalesce(p_said[d], v_pool.learned[d]);
        END LOOP;
    END IF;
    v_capacity := ARRAY[least(v_pool.configured[1], v_pool.learned[1]),
                        least(v_pool.configured[2], v_pool.learned[2]),
                        least(v_pool.configured[3], v_pool.learned[3]), v_pool.configured[4]];
    v_tell := v_tell OR v_capacity IS DISTINCT FROM v_before;
    FOR d IN 1..3 LOOP
        v_pool.level[d] := least(
            v_capacity[d] - v_ahead[d], coalesce(v_pool.level[d], v_capacity[d]));
        IF p_said[d] IS NOT NULL AND p_said[6 + d] IS NOT NULL THEN
            v_left := least(p_said[3 + d], p_said[d])
                - CASE WHEN d = 3 THEN v_output + p_output  -- it counts when it is made
                  ELSE greatest(0, v_pool.taken[d] - p_said[6 + d]) END;
            IF v_left < v_pool.level[d] OR (v_others + p_slots <= 1 AND v_heads = 0
                    AND v_part.want IS NULL AND v_capacity[d] = p_said[d]) THEN
                v_pool.level[d] := least(v_left, v_capacity[d]);
            END IF;
        END IF;
    END LOOP;

    -- 3. Pause: nothing leaves before its end, the buckets are empty then and refill from there on;
    -- also what was given back since a pause that ends later: the server has just refused again.
    IF p_pause_s > 0 THEN
        v_tell := v_tell OR v_now + make_interval(secs => p_pause_s) > v_pool.paused_until;
        v_pool.paused_until := greatest(
            v_pool.paused_until, v_now + make_interval(secs => p_pause_s));
        v_elapsed := greatest(0, extract(epoch FROM v_pool.paused_until - v_pool.refilled_at));
        v_pool.refilled_at := greatest(v_pool.refilled_at, v_pool.paused_until);
        IF v_capacity[1] IS NULL THEN
            v_pool.spaced_until := v_pool.paused_until + interval '10 seconds';
        END IF;
        FOR d IN 1..3 LOOP
            v_pool.level[d] := least(v_pool.level[d] + v_elapsed * v_capacity[d] / 60, -(
                SELECT coalesce(sum(want[d]), 0) FROM llm_integrations.limit_part
                WHERE pool = p_pool));
        END LOOP;
    END IF;

    -- 4. Keep back what attempts on their way may use beyond what they took.
    FOR d IN 1..3 LOOP
        v_kept[d] := least(v_capacity[d] / 4, 
            greatest(0, p_overuse[d]) * (v_others + p_slots + 1)
            + p_overuse[3 + d] * sqrt(v_others + p_slots + 1));
    END LOOP;

    -- 5. Serve: first the one that took ahead, then who comes after it, until one must wait.
    v_part.slots := p_slots;
    v_part.output := p_output;
    r_admitted := 0;
    r_wait := 0;
    r_ahead := v_part.want IS NOT NULL;
    IF r_ahead THEN
        SELECT count(*) INTO v_first FROM llm_integrations.limit_part
        WHERE pool = p_pool AND owner <> p_owner AND place[4] < v_part.place[4];
        r_wait := greatest(0, extract(epoch FROM v_pool.paused_until - v_now));
        FOR d IN 1..3 LOOP
            v_short := least(v_kept[d], v_capacity[d] - v_part.want[d])
                - (v_pool.level[d] + v_pool.taken[d] - v_part.place[d]);
            IF v_short > 1e-6 AND v_part.want[d] > 0 THEN
                r_wait := greatest(r_wait, v_short * 60 / v_capacity[d]
                    + greatest(0, extract(epoch FROM v_pool.paused_until - v_now)));
            END IF;
        END LOOP;
        IF r_wait = 0 AND v_others + v_part.slots + v_first >= v_capacity[4] THEN
            r_wait := NULL;
        END IF;
        IF r_wait = 0 THEN
            v_part.output := v_part.output + v_part.want[3];
            v_part.want := NULL;
            v_part.place := NULL;
            v_part.slots := v_part.slots + 1;
            r_ahead := false;
            r_admitted := 1;
            v_next := 1;
        END IF;
    END IF;
    WHILE v_next < v_count AND r_wait = 0 LOOP
        r_wait := greatest(0, extract(epoch FROM v_pool.paused_until - v_now));
        EXIT WHEN r_wait > 0;
        v_pool.taken[4] := v_pool.taken[4] + 1;
        FOR d IN 1..3 LOOP
            v_pool.taken[d] := v_pool.taken[d] + p_wants[3 * v_next + d];
            v_pool.level[d] := v_pool.level[d] - p_wants[3 * v_next + d];
            v_short := least(v_kept[d], v_capacity[d] - p_wants[3 * v_next + d])
                - v_pool.level[d];
            IF v_short > 1e-6 AND p_wants[3 * v_next + d] > 0 THEN
                r_wait := greatest(r_wait, v_short * 60 / v_capacity[d]);
            END IF;
        END LOOP;
        IF r_wait = 0 AND v_others + v_part.slots + v_heads >= v_capacity[4] THEN
            r_wait := NULL;
        END IF;
        IF r_wait = 0 THEN
            v_part.slots := v_part.slots + 1;
            v_part.output := v_part.output + p_wants[3 * v_next + 3];
            r_admitted := r_admitted + 1;
            IF v_now < v_pool.spaced_until THEN
                v_pool.paused_until := v_now + interval '50 milliseconds';
            END IF;
        ELSE
            r_ahead := true;
            v_part.want := p_wants[3 * v_next + 1 : 3 * v_next + 3];
            v_part.place := v_pool.taken;
        END IF;
        v_next := v_next + 1;
    END LOOP;

    UPDATE llm_integrations.limit_pool SET configured = v_pool.configured,
        learned = v_pool.learned, level = v_pool.level, taken = v_pool.taken,
        refilled_at = v_pool.refilled_at, learned_at = v_pool.learned_at,
        paused_until = v_pool.paused_until, spaced_until = v_pool.spaced_until
    WHERE name = p_pool;
    IF v_is_new THEN
        INSERT INTO llm_integrations.limit_part
        VALUES (p_pool, p_owner, v_part.slots, v_part.output, v_part.want, v_part.place);
    ELSE
        UPDATE llm_integrations.limit_part
        SET slots = v_part.slots, output = v_part.output, want = v_part.want, place = v_part.place
        WHERE pool = p_pool AND owner = p_owner;
    END IF;
    IF v_tell THEN
        PERFORM pg_notify('llm_integrations_limits', p_pool);
    END IF;
    r_capacity := v_capacity;
    r_level := v_pool.level;
    r_taken := v_pool.taken;
    r_output := v_output + v_part.output;
    r_paused := greatest(0, extract(epoch FROM v_pool.paused_until - v_now));
    r_learned := extract(epoch FROM v_now - v_pool.learned_at);
END $$;
