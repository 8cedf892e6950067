//! The wire between xtask and the process that runs the command inside a guest.
//!
//! One virtio-serial port carries everything as frames, so output stays clean of kernel messages,
//! standard output and error stay apart, and the exit status is exact.

use std::io::{self, Read, Write};

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To the host: the command is about to start.
    Ready = 1,
    /// To the host: the command's standard output.
    Stdout = 2,
    /// To the host: the command's standard error.
    Stderr = 3,
    /// To the host: exit status, one byte; the last frame.
    Exit = 4,
    /// To the guest: standard input.
    Stdin = 5,
    /// To the guest: standard input ends here.
    StdinEnd = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ready, Self::Stdout, Self::Stderr, Self::Exit, Self::Stdin, Self::StdinEnd]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// The longest payload of one frame.
pub(crate) const MAX_PAYLOAD: usize = 16 * 1024;

/// Writes one frame with a single call, so that frames of several threads do not mix.
pub(crate) fn write_frame(out: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(5 + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(payload);
    out.write_all(&frame)
}

/// Reads one frame; `None` at the end of the stream.
pub(crate) fn read_frame(input: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut kind = [0];
    if input.read(&mut kind)? == 0 {
        return Ok(None);
    }
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    let kind = Kind::from_byte(kind[0]).filter(|_| len <= MAX_PAYLOAD);
    let Some(kind) = kind else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "garbage on the guest's channel"));
    };
    let mut payload = vec![0; len];
    input.read_exact(&mut payload)?;
    Ok(Some((kind, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Kind::Stderr, b"oops").unwrap();
        write_frame(&mut wire, Kind::Exit, &[3]).unwrap();
        let mut input = wire.as_slice();
        assert_eq!(read_frame(&mut input).unwrap(), Some((Kind::Stderr, b"oops".to_vec())));
        assert_eq!(read_frame(&mut input).unwrap(), Some((Kind::Exit, vec![3])));
        assert_eq!(read_frame(&mut input).unwrap(), None);
        assert!(read_frame(&mut [77u8, 0, 0, 0, 0].as_slice()).is_err());
    }
}
