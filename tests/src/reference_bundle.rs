//! The reference bundle that user space tests too (`guard-agent/src/policy/tests/reference`), as text.

/// Its `guard.toml`.
pub const TOML: &str = include_str!("../../guard-agent/src/policy/tests/reference/guard.toml");

/// Its files of policies, by name without the ending.
pub const POLICIES: [(&str, &str); 6] = [
    ("ai-coder", include_str!("../../guard-agent/src/policy/tests/reference/ai-coder.cedar")),
    ("ci-deploy", include_str!("../../guard-agent/src/policy/tests/reference/ci-deploy.cedar")),
    ("includes", include_str!("../../guard-agent/src/policy/tests/reference/includes.cedar")),
    ("ir-bot", include_str!("../../guard-agent/src/policy/tests/reference/ir-bot.cedar")),
    ("nginx", include_str!("../../guard-agent/src/policy/tests/reference/nginx.cedar")),
    ("postgres", include_str!("../../guard-agent/src/policy/tests/reference/postgres.cedar")),
];
