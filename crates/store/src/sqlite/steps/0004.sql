INSERT INTO payloads SELECT 'pod-' || id, config FROM pod_tasks WHERE length(config) > 16384;
UPDATE pod_tasks SET config = '' WHERE 'pod-' || id IN (SELECT id FROM payloads);
