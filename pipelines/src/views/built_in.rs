//! The views that come with the product: the .sql files in `pipelines/views`, nothing special.

use companyos_views::{ViewError, ViewStatement, parse_file};

/// One of them.
#[derive(Debug, Clone)]
pub struct BuiltInView {
    /// Name.
    pub name: String,
    /// Statement.
    pub sql: String,
}

const FILES: [&str; 5] = [
    include_str!("../../views/feature_adoption.sql"),
    include_str!("../../views/active_users.sql"),
    include_str!("../../views/user_activity.sql"),
    include_str!("../../views/operational_kpis.sql"),
    include_str!("../../views/event_volume.sql"),
];

/// All of them.
pub fn built_in_views() -> Result<Vec<BuiltInView>, ViewError> {
    let mut views = Vec::new();
    for file in FILES {
        for statement in parse_file(file)? {
            if let ViewStatement::Create { name, sql, .. } = statement {
                views.push(BuiltInView { name, sql });
            }
        }
    }
    Ok(views)
}

#[cfg(test)]
mod tests {
    use companyos_views::ViewPlan;

    use super::*;

    #[test]
    fn every_built_in_view_can_be_planned() {
        let views = built_in_views().unwrap();
        assert!(views.len() >= 9, "{views:?}");
        for view in views {
            let ViewStatement::Create { name, options, query, .. } = companyos_views::parse(&view.sql).unwrap() else {
                panic!("{}", view.sql);
            };
            let plan = ViewPlan::new(&name, &query, options, &()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(plan.schema.field(0).name(), "tenant");
        }
    }
}
