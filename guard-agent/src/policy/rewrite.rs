//! Cedar expressions, rewritten and simplified.
//!
//! The rewrites of the effective policy set replace literals and attributes by constants; what
//! becomes constant with them is folded, so that the result reads as a person would have written
//! it. Folding may drop an operand because no expression of a validated policy can fail: the
//! validator proves that an attribute is there, and the compiler refuses arithmetic.

use std::sync::Arc;

use cedar_policy_core::ast::{BinaryOp, EntityUID, Expr, ExprKind, Literal, UnaryOp};

/// How entity literals are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The right side of `in`.
    Within,
    /// Anywhere else.
    Equal,
}

/// What becomes of parts of an expression.
pub(super) trait Rewrite {
    /// What an entity literal becomes.
    fn literal(&self, uid: &EntityUID, how: Use) -> Option<EntityUID> {
        let _ = (uid, how);
        None
    }

    /// What a whole expression becomes; `None` to look at its parts.
    fn expression(&self, expr: &Expr) -> Option<Expr> {
        let _ = expr;
        None
    }
}

/// Applies `rewrite` from the outside in, and simplifies from the inside out.
pub(super) fn rewrite(expr: &Expr, rules: &impl Rewrite) -> Expr {
    walk(expr, rules, Use::Equal)
}

fn walk(expr: &Expr, rules: &impl Rewrite, how: Use) -> Expr {
    if let Some(replaced) = rules.expression(expr) {
        return replaced;
    }
    let go = |part: &Arc<Expr>| walk(part, rules, how);
    match expr.expr_kind() {
        ExprKind::Lit(Literal::EntityUID(uid)) => match rules.literal(uid, how) {
            Some(other) => Expr::val(other),
            None => expr.clone(),
        },
        ExprKind::If { test_expr, then_expr, else_expr } => {
            let test = walk(test_expr, rules, Use::Equal);
            match constant(&test) {
                Some(true) => go(then_expr),
                Some(false) => go(else_expr),
                None => if_then_else(test, go(then_expr), go(else_expr)),
            }
        }
        ExprKind::And { left, right } => match go(left) {
            left if constant(&left) == Some(false) => left,
            left => and(left, go(right)),
        },
        ExprKind::Or { left, right } => match go(left) {
            left if constant(&left) == Some(true) => left,
            left => or(left, go(right)),
        },
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => not(go(arg)),
        ExprKind::UnaryApp { op, arg } => unary(*op, go(arg)),
        ExprKind::BinaryApp { op, arg1, arg2 } => {
            let right = if *op == BinaryOp::In { Use::Within } else { Use::Equal };
            binary(*op, walk(arg1, rules, Use::Equal), walk(arg2, rules, right))
        }
        ExprKind::GetAttr { expr: of, attr } => Expr::get_attr(go(of), attr.clone()),
        ExprKind::HasAttr { expr: of, attr } => Expr::has_attr(go(of), attr.clone()),
        ExprKind::ExtHasAttr { expr: of, attrs } => Expr::extended_has_attr(go(of), attrs.clone()),
        ExprKind::Like { expr: of, pattern } => {
            let of = go(of);
            match of.expr_kind() {
                ExprKind::Lit(Literal::String(text)) => Expr::val(pattern.wildcard_match(text)),
                _ => Expr::like(of, pattern.clone()),
            }
        }
        ExprKind::Is { expr: of, entity_type } => {
            let of = go(of);
            match of.expr_kind() {
                ExprKind::Lit(Literal::EntityUID(uid)) => Expr::val(uid.entity_type() == entity_type),
                _ => Expr::is_entity_type(of, entity_type.clone()),
            }
        }
        ExprKind::Set(items) => Expr::set(items.iter().map(|item| walk(item, rules, how))),
        ExprKind::Record(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), walk(value, rules, how)));
            Expr::record_arc(Arc::new(fields.collect()))
        }
        ExprKind::ExtensionFunctionApp { fn_name, args } => Expr::call_extension_fn(
            fn_name.clone(),
            args.iter().map(|argument| walk(argument, rules, how)).collect(),
        ),
        ExprKind::Lit(_) | ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => expr.clone(),
    }
}

/// The value of a boolean literal.
pub(super) fn constant(expr: &Expr) -> Option<bool> {
    match expr.expr_kind() {
        ExprKind::Lit(Literal::Bool(value)) => Some(*value),
        _ => None,
    }
}

/// `a && b`, simplified.
pub(super) fn and(a: Expr, b: Expr) -> Expr {
    match (constant(&a), constant(&b)) {
        (Some(false), _) | (_, Some(true)) => a,
        (Some(true), _) | (_, Some(false)) => b,
        _ if a == b => a,
        _ => Expr::and(a, b),
    }
}

/// `a || b`, simplified. An alternative that is there already is not added again.
pub(super) fn or(a: Expr, b: Expr) -> Expr {
    match (constant(&a), constant(&b)) {
        (Some(true), _) | (_, Some(false)) => a,
        (Some(false), _) | (_, Some(true)) => b,
        _ if has_alternative(&a, &b) => a,
        _ => Expr::or(a, b),
    }
}

fn has_alternative(all: &Expr, one: &Expr) -> bool {
    all == one
        || match all.expr_kind() {
            ExprKind::Or { left, right } => has_alternative(left, one) || has_alternative(right, one),
            _ => false,
        }
}

/// `!a`, simplified.
pub(super) fn not(a: Expr) -> Expr {
    match a.expr_kind() {
        ExprKind::Lit(Literal::Bool(value)) => Expr::val(!value),
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => (**arg).clone(),
        _ => Expr::not(a),
    }
}

fn if_then_else(test: Expr, yes: Expr, no: Expr) -> Expr {
    match (constant(&yes), constant(&no)) {
        _ if yes == no => yes,
        (Some(true), Some(false)) => test,
        (Some(false), Some(true)) => not(test),
        (Some(false), None) => and(not(test), no),
        (None, Some(false)) => and(test, yes),
        _ => Expr::ite(test, yes, no),
    }
}

fn unary(op: UnaryOp, arg: Expr) -> Expr {
    match (op, arg.expr_kind()) {
        (UnaryOp::IsEmpty, ExprKind::Set(items)) => Expr::val(items.is_empty()),
        _ => Expr::unary_app(op, arg),
    }
}

fn binary(op: BinaryOp, a: Expr, b: Expr) -> Expr {
    let decided = match (op, a.expr_kind(), b.expr_kind()) {
        (BinaryOp::Eq, ExprKind::Lit(left), ExprKind::Lit(right)) => Some(left == right),
        (BinaryOp::Eq, ExprKind::Var(left), ExprKind::Var(right)) if left == right => Some(true),
        (BinaryOp::Less, ExprKind::Lit(Literal::Long(left)), ExprKind::Lit(Literal::Long(right))) => {
            Some(left < right)
        }
        (BinaryOp::LessEq, ExprKind::Lit(Literal::Long(left)), ExprKind::Lit(Literal::Long(right))) => {
            Some(left <= right)
        }
        (BinaryOp::Contains, ExprKind::Set(items), ExprKind::Lit(_)) if literals(items) => {
            Some(items.contains(&b))
        }
        (BinaryOp::ContainsAll, ExprKind::Set(items), ExprKind::Set(wanted))
            if literals(items) && literals(wanted) =>
        {
            Some(wanted.iter().all(|item| items.contains(item)))
        }
        (BinaryOp::ContainsAny, ExprKind::Set(items), ExprKind::Set(wanted))
            if literals(items) && literals(wanted) =>
        {
            Some(wanted.iter().any(|item| items.contains(item)))
        }
        _ => None,
    };
    decided.map_or_else(|| Expr::binary_app(op, a, b), Expr::val)
}

fn literals(items: &[Expr]) -> bool {
    items.iter().all(|item| matches!(item.expr_kind(), ExprKind::Lit(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `context.posture has x` becomes true, `context.posture.x` becomes 3.
    struct Three;

    impl Rewrite for Three {
        fn expression(&self, expr: &Expr) -> Option<Expr> {
            match expr.expr_kind() {
                ExprKind::HasAttr { attr, .. } if attr == "x" => Some(Expr::val(true)),
                ExprKind::GetAttr { attr, .. } if attr == "x" => Some(Expr::val(3i64)),
                _ => None,
            }
        }
    }

    #[test]
    fn constants_are_folded_away() {
        for (text, wanted) in [
            ("context.posture has x && context.posture.x >= 3", "true"),
            ("!(context.posture has x) || resource.port == 1", "resource.port == 1"),
            (
                "if context.posture.x < 3 then resource.port == 1 else resource.port == 2",
                "resource.port == 2",
            ),
            ("if resource.port == 1 then context.posture.x == 3 else false", "resource.port == 1"),
            ("[1, 3].contains(context.posture.x) && resource.port == 1", "resource.port == 1"),
            ("[1, 3].containsAny([context.posture.x])", "true"),
            ("resource.port == 1 && context.posture.x == 4", "false"),
            (
                "(resource.port == 1 || resource.port == 2) || resource.port == 1",
                "resource.port == 1 || resource.port == 2",
            ),
        ] {
            let expected: Expr = wanted.parse().unwrap();
            assert_eq!(rewrite(&text.parse().unwrap(), &Three), expected, "{text}");
        }
    }
}
