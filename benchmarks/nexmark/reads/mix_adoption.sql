SELECT tenant, env, region, day, feature, role, events, users FROM feature_adoption
