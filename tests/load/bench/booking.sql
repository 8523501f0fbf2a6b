-- One booking, statement by statement as scheduling's API does it, without us around it.
-- Each transaction takes the next free half hour of one of 64 practitioners, far in the future.
SELECT nextval('bench_booking') AS n \gset
\set practitioner mod(:n, 64)
\set half_hour :n / 64
BEGIN;
INSERT INTO idempotency_key (principal, route, key, fingerprint)
    VALUES ('bench', 'POST /v1/appointments', :n::text, '\x00'::bytea)
    ON CONFLICT (principal, route, key) DO UPDATE SET created_at = now()
    WHERE idempotency_key.created_at < now() - interval '24 hours' RETURNING key;
SELECT * FROM service WHERE code = 'bench';
SELECT * FROM department LIMIT 1;
SELECT patient_id FROM patient WHERE active LIMIT 1;
SELECT resource_id AS resource FROM resource ORDER BY resource_id OFFSET :practitioner LIMIT 1 FOR NO KEY UPDATE \gset
SELECT resource_id, during FROM allocation WHERE resource_id = ':resource'
    AND during && tstzrange('2100-01-01'::timestamptz + :half_hour * interval '30 minutes',
                            '2100-01-01'::timestamptz + (:half_hour + 1) * interval '30 minutes');
SELECT time_zone FROM centre LIMIT 1;
SELECT * FROM weekly_hours WHERE practitioner_id = ':resource';
SELECT * FROM availability_exception WHERE practitioner_id = ':resource'
    AND during && tstzrange('2100-01-01', '2100-01-02');
SELECT gen_random_uuid() AS appointment \gset
INSERT INTO appointment (appointment_id, version, status, patient_id, practitioner_id, device_ids, service_id,
        service_code, centre_id, department_id, starts_at, ends_at, booked_through, booked_at)
    SELECT ':appointment', 1, 'booked', p.patient_id, ':resource', '{}', s.service_id, s.code, d.centre_id,
        d.department_id, '2100-01-01'::timestamptz + :half_hour * interval '30 minutes',
        '2100-01-01'::timestamptz + (:half_hour + 1) * interval '30 minutes', 'registry', now()
    FROM patient p, service s, department d LIMIT 1;
INSERT INTO allocation VALUES (':appointment', ':resource',
    tstzrange('2100-01-01'::timestamptz + :half_hour * interval '30 minutes',
              '2100-01-01'::timestamptz + (:half_hour + 1) * interval '30 minutes'));
SELECT centre.time_zone, service.name, resource.name FROM service, centre, resource
    WHERE resource_id = ':resource' LIMIT 1;
INSERT INTO event (event_id, type, subject, aggregate_version, partition_key, occurred_at, origin,
        correlation_id, data, private, seal)
    VALUES (gen_random_uuid(), 'scheduling.appointment-booked.v1', ':appointment', 1, ':resource', now(),
        'live', gen_random_uuid(), jsonb_build_object('appointment_id', ':appointment', 'filler', repeat('x', 700)),
        jsonb_build_object('service_name', 'Bench'), 'none');
INSERT INTO outbox (event_id, partition_key) VALUES (gen_random_uuid(), ':resource');
INSERT INTO audit_outbox (record, leaf_hash) VALUES (convert_to(repeat('x', 450), 'UTF8'), sha256('x'));
UPDATE idempotency_key SET status = 201, headers = '[]', body = convert_to(repeat('x', 700), 'UTF8')
    WHERE principal = 'bench' AND route = 'POST /v1/appointments' AND key = :n::text;
COMMIT;
