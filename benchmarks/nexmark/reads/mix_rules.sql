SELECT event_id, string_agg(rule_id, ',' ORDER BY rule_id) AS rules
FROM (SELECT json_get_str(evidence, 0, 'event_id') AS event_id, rule_id FROM detections WHERE kind = 'sigma')
GROUP BY event_id
