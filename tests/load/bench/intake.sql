-- One accepted laboratory message of the size of contracts/hl7/panel.hl7, and its audit record.
BEGIN;
INSERT INTO intake (id, interface, sender, digest, content_type, body, attributes, answer, answer_type,
        received_at, via)
    VALUES (gen_random_uuid(), 'bench', 'bench', sha256(convert_to(random()::text, 'UTF8')),
        'application/hl7-v2', convert_to(repeat('x', 1500), 'UTF8'), '{}', convert_to(repeat('x', 150), 'UTF8'),
        'application/hl7-v2', now(), 'database');
INSERT INTO audit_outbox (record, leaf_hash) VALUES (convert_to(repeat('x', 450), 'UTF8'), sha256('x'));
COMMIT;
