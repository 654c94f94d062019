//! Who may see a preview: keys in addresses, and cookies of a preview's own host.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use legwork_base::digest::hex;
use sha2::{Digest, Sha256};

use crate::access::{Access, Rights, bearer};
use crate::http::reply;

/// What browsers ask for with a ticket: no path of the application.
pub(crate) const ENTRY: &str = "/.legwork/preview";
/// The name of our cookie, where it can be bound to its host, and where not.
const BOUND: &str = "__Host-legwork-preview";
const PLAIN: &str = "legwork-preview";
/// How long a ticket can be used: until the frame it was got for is loaded.
const TICKET: Duration = Duration::from_secs(60);
/// Most tickets that wait to be used.
const MAX_TICKETS: usize = 1024;
/// Most names of cookies that are remembered as not the application's.
const MAX_NAMES: usize = 1024;

struct Ticket {
    text: String,
    port: u16,
    rights: Rights,
    secure: bool,
    until: Instant,
}

#[derive(Default)]
struct Known {
    tickets: VecDeque<Ticket>,
    /// What browsers send to our own address, too: it is whatever is in front of us that has
    /// set it for all of its hosts, and no application's.
    cookies: BTreeSet<String>,
    credentials: BTreeSet<[u8; 32]>,
    /// There were more.
    full: bool,
}

/// The keys to the previews of a workspace, new at each start.
pub(crate) struct Door {
    work: String,
    look: String,
    known: Mutex<Known>,
}

impl Default for Door {
    fn default() -> Self {
        Self { work: legwork_base::ids::secret(), look: legwork_base::ids::secret(), known: Mutex::default() }
    }
}

/// The cookies of a request: names and values.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
    all.flat_map(|c| c.split(';'))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (n.trim(), v.trim()))
}

/// Whether a cookie's name is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    name.eq_ignore_ascii_case(BOUND) || name.eq_ignore_ascii_case(PLAIN)
}

/// Digests are compared, so that the time it takes tells nothing of what it should have been.
fn is_same(given: &str, wanted: &str) -> bool {
    Sha256::digest(given) == Sha256::digest(wanted)
}

fn digest(value: &HeaderValue) -> [u8; 32] {
    Sha256::digest(value.as_bytes()).into()
}

impl Door {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a secret of ours makes for one port and one use. From what it makes for one, nobody
    /// learns what it makes for another.
    fn made(&self, rights: Rights, port: u16, what: &str) -> String {
        let secret = match rights {
            Rights::Work => &self.work,
            Rights::Look => &self.look,
        };
        hex(&Sha256::digest(format!("{secret}:{port}{what}"))[..16])
    }

    /// The key in an address by path. The application is told it, with its own address, so it is
    /// good for that application's port alone.
    pub(super) fn key(&self, rights: Rights, port: u16) -> String {
        self.made(rights, port, ":path")
    }

    /// What a key in an address lets at a port.
    pub(super) fn opens(&self, given: &str, port: u16) -> Option<Rights> {
        [Rights::Work, Rights::Look].into_iter().find(|rights| is_same(given, &self.key(*rights, port)))
    }

    /// A cookie's value: it is good for one port.
    fn pass(&self, rights: Rights, port: u16) -> String {
        self.made(rights, port, "")
    }

    /// Notes what is sent to our own address: it is not passed to applications.
    pub(crate) fn learn(&self, headers: &HeaderMap) {
        let mut known = self.known();
        for (name, _) in cookies(headers) {
            if known.cookies.len() < MAX_NAMES {
                known.cookies.insert(name.to_owned());
            } else if !known.cookies.contains(name) {
                known.full = true;
            }
        }
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            if known.credentials.len() < MAX_NAMES {
                known.credentials.insert(digest(value));
            } else if !known.credentials.contains(&digest(value)) {
                known.full = true;
            }
        }
    }

    /// A ticket to a port's preview: good once, for a minute.
    pub(crate) fn ticket(&self, rights: Rights, port: u16, secure: bool) -> String {
        let text = legwork_base::ids::secret();
        let mut known = self.known();
        let now = Instant::now();
        known.tickets.retain(|ticket| ticket.until > now);
        if known.tickets.len() >= MAX_TICKETS {
            known.tickets.pop_front();
        }
        let ticket = Ticket { text: text.clone(), port, rights, secure, until: now + TICKET };
        known.tickets.push_back(ticket);
        text
    }

    /// Lets somebody in who has a ticket: sets the cookie, and leads to where they want to go.
    pub(crate) fn enter(&self, port: u16, query: &str) -> Option<Response> {
        let mut given = None;
        let mut to = "/".to_owned();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "ticket" => given = Some(value.into_owned()),
                "to" if is_path(&value) => to = value.into_owned(),
                _ => {}
            }
        }
        let given = given?;
        let now = Instant::now();
        let ticket = {
            let mut known = self.known();
            let is_it = |t: &Ticket| is_same(&given, &t.text) && t.port == port && t.until > now;
            // It stood in an address, which others may come to know: it is good once.
            let at = known.tickets.iter().position(is_it)?;
            known.tickets.remove(at)?
        };
        let value = self.pass(ticket.rights, port);
        let cookie = if ticket.secure {
            // In a frame of another site a cookie is kept for that site's frames alone.
            format!("{BOUND}={value}; Path=/; HttpOnly; Secure; SameSite=None; Partitioned")
        } else {
            format!("{PLAIN}={value}; Path=/; HttpOnly; SameSite=Lax")
        };
        let mut response = reply::empty(StatusCode::SEE_OTHER);
        let headers = response.headers_mut();
        headers.insert(header::SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
        headers.insert(header::LOCATION, HeaderValue::from_str(&to).ok()?);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        Some(response)
    }

    /// What the cookie of a request lets.
    pub(crate) fn rights(&self, port: u16, headers: &HeaderMap) -> Option<Rights> {
        [Rights::Work, Rights::Look].into_iter().find(|rights| {
            let pass = self.pass(*rights, port);
            cookies(headers).any(|(name, value)| matches!(name, BOUND | PLAIN) && is_same(value, &pass))
        })
    }

    /// Whether a cookie is the application's own.
    pub(super) fn passes(&self, name: &str) -> bool {
        let known = self.known();
        !known.full && !is_ours(name) && !known.cookies.contains(name)
    }

    /// Whether an `Authorization` is for the application.
    pub(super) fn is_theirs(&self, access: &Access, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return true };
        let ours = access.has_token() && access.rights(bearer(headers)).is_some();
        let known = self.known();
        !ours && !known.full && !known.credentials.contains(&digest(value))
    }
}

/// A path of the same host, and nothing else.
fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("value"))])
    }

    #[test]
    fn a_ticket_opens_one_port_and_leads_nowhere_else() {
        let door = Door::default();
        let ticket = door.ticket(Rights::Look, 5173, true);
        assert!(door.enter(5174, &format!("ticket={ticket}")).is_none());
        assert!(door.enter(5173, "ticket=x").is_none());
        for (to, want) in [
            ("/a?b=c", "/a?b=c"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a%0d%0aSet-Cookie:x", "/"),
        ] {
            let ticket = door.ticket(Rights::Look, 5173, true);
            let query = format!("ticket={ticket}&to={}", to.replace('?', "%3F"));
            let said = door.enter(5173, &query).expect("in");
            assert_eq!(said.headers()["location"], want);
            assert!(door.enter(5173, &query).is_none(), "a ticket is good once");
        }
        let said = door.enter(5173, &format!("ticket={ticket}")).expect("in");
        let cookie = said.headers()["set-cookie"].to_str().expect("text");
        let pair = cookie.split(';').next().expect("pair");
        let sent = with(header::COOKIE, &format!("a=b; {pair}"));
        assert_eq!(door.rights(5173, &sent), Some(Rights::Look));
        assert_eq!(door.rights(5174, &sent), None);
        assert_eq!(Door::default().rights(5173, &sent), None);
    }

    #[test]
    fn a_key_by_path_is_of_one_port_and_no_cookie() {
        let door = Door::default();
        for rights in [Rights::Work, Rights::Look] {
            let key = door.key(rights, 5173);
            assert_eq!(door.opens(&key, 5173), Some(rights));
            // Neither of another port, nor one of those whose number goes on as this one does.
            for port in [5174, 517, 1, 51731] {
                assert_eq!(door.opens(&key, port), None, "{port}");
            }
            assert_eq!(door.opens(&key[..31], 5173), None);
            assert_eq!(door.opens("", 5173), None);
            assert_eq!(Door::default().opens(&key, 5173), None);
            // The application knows this key, and must not be able to make a cookie of it.
            assert_eq!(door.rights(5173, &with(header::COOKIE, &format!("{PLAIN}={key}"))), None);
        }
        assert_eq!(door.opens(&door.pass(Rights::Work, 5173), 5173), None);
    }

    #[test]
    fn what_is_sent_to_our_own_address_is_no_application_s() {
        let door = Door::default();
        let access = Access::new(Some("token"), None, &[], false);
        let mut sent = with(header::COOKIE, "ingress=secret; other=1");
        sent.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic aW5ncmVzcw=="));
        assert!(door.passes("ingress") && door.is_theirs(&access, &sent));
        door.learn(&sent);
        assert!(!door.passes("ingress") && !door.passes("other") && door.passes("session"));
        assert!(!door.is_theirs(&access, &sent));
        assert!(!door.is_theirs(&access, &with(header::AUTHORIZATION, "Bearer token")));
        assert!(door.is_theirs(&access, &with(header::AUTHORIZATION, "Bearer theirs")));
        assert!(!door.passes(BOUND) && !door.passes(PLAIN));
        // So many that not all can be remembered: then none passes.
        for n in 0..=MAX_NAMES {
            door.learn(&with(header::COOKIE, &format!("n{n}=x")));
        }
        assert!(!door.passes("session"));
    }
}
