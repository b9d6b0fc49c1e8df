-- Feature X adoption over the last 30 days by tenant and role; set the feature's name.
SELECT tenant, role, sum(events) AS events, max(users) AS most_users_a_day, count(*) AS active_days
FROM feature_adoption
WHERE feature = 'feature-x' AND day >= date_trunc('day', now()) - interval '30 days'
GROUP BY tenant, role
ORDER BY events DESC;
