//! What a call would execute, read from the memory of the process that calls.

use std::io;

use crate::sys;

/// Most bytes of arguments and environment together.
const MOST_BYTES: usize = 256 * 1024;
/// Most arguments, and most variables.
const MOST_TEXTS: usize = 16 * 1024;
/// Longest path (PATH_MAX).
const MOST_PATH: usize = 4096;
const PAGE: u64 = 4096;
/// What is read of a text at first, of many in one call.
const FIRST: usize = 192;
/// Texts of one call.
const BATCH: usize = 128;

/// Why something can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Its memory is closed to us.
    Closed,
    /// It is longer than what is judged.
    TooLong,
    /// There is nothing there.
    Nothing,
}

impl Unreadable {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Closed => "what it would execute can't be read: the calling process is closed to others",
            Self::TooLong => "its arguments and environment are longer than 256 KiB, or a path than 4 KiB",
            Self::Nothing => "it has no arguments, or they can't be read",
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EFAULT | libc::EIO) => Self::Nothing,
            _ => Self::Closed,
        }
    }
}

type Read<T> = Result<T, Unreadable>;

/// A list of texts, one after the other, each ended by a zero byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) bytes: Vec<u8>,
}

impl Texts {
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.strip_suffix(b"\0").into_iter().flat_map(|bytes| bytes.split(|b| *b == 0))
    }

    pub(super) fn to_strings(&self) -> Vec<String> {
        self.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }
}

/// Reads one text that ends with a zero byte.
pub(super) fn path(thread: u32, address: u64) -> Read<Vec<u8>> {
    let mut text = Vec::new();
    rest_of(thread, address, &mut text, MOST_PATH)?;
    Ok(text)
}

/// Reads arguments and environment.
pub(super) fn texts(thread: u32, argv: u64, env: u64) -> Read<(Texts, Texts)> {
    let mut left = MOST_BYTES;
    let argv = list(thread, argv, &mut left)?;
    if argv.bytes.is_empty() {
        return Err(Unreadable::Nothing);
    }
    // The kernel takes none for an empty one.
    let env = if env == 0 { Texts::default() } else { list(thread, env, &mut left)? };
    Ok((argv, env))
}

fn list(thread: u32, address: u64, left: &mut usize) -> Read<Texts> {
    let pointers = pointers(thread, address)?;
    let mut texts = Texts::default();
    let mut buffer = vec![0u8; FIRST * pointers.len().min(BATCH)];
    for batch in pointers.chunks(BATCH) {
        let mut parts: Vec<(u64, &mut [u8])> = Vec::with_capacity(batch.len());
        let mut space = buffer.as_mut_slice();
        for pointer in batch {
            let (part, rest) = space.split_at_mut(to_page_end(*pointer).min(FIRST));
            space = rest;
            parts.push((*pointer, part));
        }
        let wanted: usize = parts.iter().map(|(_, part)| part.len()).sum();
        if sys::read_memory(thread, &mut parts)? < wanted {
            return Err(Unreadable::Nothing);
        }
        for (pointer, part) in &parts {
            let before = texts.bytes.len();
            match part.iter().position(|b| *b == 0) {
                Some(end) => texts.bytes.extend_from_slice(&part[..end]),
                None => {
                    texts.bytes.extend_from_slice(part);
                    rest_of(thread, pointer + part.len() as u64, &mut texts.bytes, before + *left)?;
                }
            }
            texts.bytes.push(0);
            let used = texts.bytes.len() - before;
            *left = left.checked_sub(used).ok_or(Unreadable::TooLong)?;
        }
    }
    Ok(texts)
}

/// The addresses up to the one that is 0.
fn pointers(thread: u32, mut address: u64) -> Read<Vec<u64>> {
    const SIZE: usize = size_of::<u64>();
    let mut found = Vec::new();
    let mut chunk = [0u8; PAGE as usize];
    let mut want = 64 * SIZE;
    loop {
        // One that is not aligned could stand across two pages: it is read in two steps then.
        let room = to_page_end(address).min(want);
        let len = if room < SIZE { SIZE } else { room - room % SIZE };
        read_whole(thread, address, &mut chunk[..len])?;
        for bytes in chunk[..len].chunks_exact(SIZE) {
            let pointer = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
            if pointer == 0 {
                return Ok(found);
            }
            found.push(pointer);
        }
        if found.len() > MOST_TEXTS {
            return Err(Unreadable::TooLong);
        }
        address = address.checked_add(len as u64).ok_or(Unreadable::Nothing)?;
        want = chunk.len();
    }
}

/// Reads on until a zero byte, which is left out.
fn rest_of(thread: u32, mut address: u64, text: &mut Vec<u8>, most: usize) -> Read<()> {
    let mut chunk = [0u8; PAGE as usize];
    let mut want = 256;
    loop {
        let len = to_page_end(address).min(want);
        read_whole(thread, address, &mut chunk[..len])?;
        let end = chunk[..len].iter().position(|b| *b == 0);
        text.extend_from_slice(&chunk[..end.unwrap_or(len)]);
        if text.len() >= most {
            return Err(Unreadable::TooLong);
        }
        if end.is_some() {
            return Ok(());
        }
        address = address.checked_add(len as u64).ok_or(Unreadable::Nothing)?;
        want = chunk.len();
    }
}

fn read_whole(thread: u32, address: u64, buffer: &mut [u8]) -> Read<()> {
    let wanted = buffer.len();
    match sys::read_memory(thread, &mut [(address, buffer)])? {
        read if read == wanted => Ok(()),
        _ => Err(Unreadable::Nothing),
    }
}

fn to_page_end(address: u64) -> usize {
    usize::try_from(PAGE - address % PAGE).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn address(pointers: &[*const libc::c_char]) -> u64 {
        pointers.as_ptr().addr() as u64
    }

    fn read_back(texts: &[Vec<u8>]) -> Read<Texts> {
        let owned: Vec<CString> = texts.iter().map(|t| CString::new(t.clone()).expect("text")).collect();
        let pointers: Vec<*const libc::c_char> =
            owned.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect();
        let read = super::texts(std::process::id(), address(&pointers), 0);
        read.map(|(argv, _)| argv)
    }

    #[test]
    fn arguments_of_every_length_are_read_whole() {
        for lens in [vec![0], vec![1, 0, 191, 192, 193], vec![4095, 4096, 4097, 70_000], vec![3; 5000]] {
            let texts: Vec<Vec<u8>> = lens.iter().map(|len| vec![b'x'; *len]).collect();
            let read = read_back(&texts).expect("read");
            assert_eq!(read.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), texts, "{lens:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_is_not_there_is_no_argument() {
        assert_eq!(read_back(&[vec![b'x'; 300_000]]), Err(Unreadable::TooLong));
        assert_eq!(read_back(&vec![Vec::new(); 20_000]), Err(Unreadable::TooLong));
        assert_eq!(read_back(&vec![vec![b'x'; 100]; 3000]), Err(Unreadable::TooLong));
        assert_eq!(read_back(&[]), Err(Unreadable::Nothing));
        assert_eq!(super::texts(std::process::id(), 0, 0), Err(Unreadable::Nothing));
        assert_eq!(super::texts(std::process::id(), 8, 0), Err(Unreadable::Nothing));
        assert_eq!(path(std::process::id(), 8), Err(Unreadable::Nothing));
        let pointers = [std::ptr::without_provenance::<libc::c_char>(8), std::ptr::null()];
        assert_eq!(super::texts(std::process::id(), address(&pointers), 0), Err(Unreadable::Nothing));
    }
}
