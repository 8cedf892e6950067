//! Shares of a socket that several users can reach: connections, and requests that come back with time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Users whose requests are remembered. Who has made none for a while is forgotten first.
pub(super) const MAX_USERS: usize = 4096;

/// What is shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time, and those of one user.
    pub(super) connections: usize,
    pub(super) of_user: usize,
    /// Requests that a user can make at once, and how many of them come back in a second.
    pub(super) burst: f64,
    pub(super) refill: f64,
}

/// What users have asked for.
pub(super) struct Users {
    limits: Limits,
    connections: usize,
    of: HashMap<u32, User>,
}

struct User {
    connections: usize,
    /// Requests it may make now.
    left: f64,
    at: Instant,
}

impl Users {
    /// Nobody has asked for anything yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, connections: 0, of: HashMap::new() }
    }

    /// Whether one more connection of a user is taken. It counts until [`Users::close`].
    pub(super) fn open(&mut self, uid: u32, now: Instant) -> bool {
        let limits = self.limits;
        if self.of.len() >= MAX_USERS {
            self.of.retain(|_, user| user.connections != 0 || user.refilled(&limits, now) < limits.burst);
        }
        if self.of.len() >= MAX_USERS && !self.of.contains_key(&uid) {
            return false;
        }
        let user = self.of.entry(uid).or_insert(User { connections: 0, left: limits.burst, at: now });
        if self.connections >= limits.connections || user.connections >= limits.of_user {
            return false;
        }
        user.connections += 1;
        self.connections += 1;
        true
    }

    fn close(&mut self, uid: u32) {
        if let Some(user) = self.of.get_mut(&uid) {
            user.connections = user.connections.saturating_sub(1);
        }
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether a user may make one more request now.
    pub(super) fn take(&mut self, uid: u32, now: Instant) -> bool {
        let limits = self.limits;
        let Some(user) = self.of.get_mut(&uid) else { return false };
        (user.left, user.at) = (user.refilled(&limits, now), now);
        let may = user.left >= 1.0;
        if may {
            user.left -= 1.0;
        }
        may
    }
}

impl User {
    fn refilled(&self, limits: &Limits, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + seconds * limits.refill).min(limits.burst)
    }
}

/// Users, for whoever serves them.
pub(super) type SharedUsers = Arc<Mutex<Users>>;

/// Exclusive use of them.
pub(super) fn lock(users: &SharedUsers) -> MutexGuard<'_, Users> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that counts.
pub(super) struct Counted {
    pub(super) users: SharedUsers,
    uid: u32,
}

impl Counted {
    /// Counts one more connection of a user; nothing if it has its share, or there are too many.
    pub(super) fn open(users: &SharedUsers, uid: u32) -> Option<Self> {
        let taken = lock(users).open(uid, Instant::now());
        taken.then(|| Self { users: Arc::clone(users), uid })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        lock(&self.users).close(self.uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits { connections: 128, of_user: 16, burst: 30.0, refill: 2.0 };

    #[test]
    fn a_user_has_a_share_of_connections_and_others_have_theirs() {
        let (mut users, now) = (Users::new(LIMITS), Instant::now());
        for _ in 0..LIMITS.of_user {
            assert!(users.open(1, now));
        }
        assert!(!users.open(1, now) && users.open(2, now));
        users.close(1);
        assert!(users.open(1, now));
        for uid in 10..200 {
            users.open(uid, now);
        }
        assert_eq!(users.connections, LIMITS.connections);
        assert!(!users.open(3, now));
    }

    #[test]
    fn requests_come_back_with_time() {
        let (mut users, now) = (Users::new(LIMITS), Instant::now());
        assert!(users.open(1, now) && users.open(2, now));
        let made = (0..100).filter(|_| users.take(1, now)).count();
        assert_eq!(made, LIMITS.burst as usize);
        assert!(users.take(2, now), "another user's are another's");
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| users.take(1, later)).count(), LIMITS.refill as usize);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| users.take(1, much_later)).count(), LIMITS.burst as usize);
    }

    #[test]
    fn users_that_are_forgotten_have_nothing_to_come_back() {
        let (mut users, now) = (Users::new(LIMITS), Instant::now());
        for uid in 0..MAX_USERS as u32 {
            assert!(users.open(uid, now));
            users.close(uid);
        }
        while users.take(5, now) {}
        assert!(users.open(9_999, now));
        assert!(!users.take(5, now), "it is remembered");
    }
}
