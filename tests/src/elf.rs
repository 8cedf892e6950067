//! Programs of a few bytes, made by hand: a static one that does nothing, and one that asks for an
//! interpreter.

/// Where a program is loaded.
const PROGRAM_BASE: u64 = 0x40_0000;
/// Where an interpreter is loaded: Linux 6.1 kills a process whose two images overlap.
const INTERPRETER_BASE: u64 = 0x80_0000;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// A static x86-64 program that exits with `status`.
pub fn exits_with(status: u8) -> Vec<u8> {
    build(PROGRAM_BASE, status, None)
}

/// A program that can be the interpreter of another.
pub fn interpreter() -> Vec<u8> {
    build(INTERPRETER_BASE, 0, None)
}

/// The same, which asks the kernel for `interpreter` to load it.
pub fn interpreted_by(interpreter: &str) -> Vec<u8> {
    build(PROGRAM_BASE, 0, Some(interpreter))
}

/// elf(5): a header, one PT_LOAD over the whole file, a PT_INTERP if wanted, code, the name of the
/// interpreter.
fn build(base: u64, status: u8, interpreter: Option<&str>) -> Vec<u8> {
    let headers = 1 + usize::from(interpreter.is_some());
    let code_at = HEADER + headers * PROGRAM_HEADER;
    // mov edi, status; mov eax, 60 (exit); syscall
    let code = [0xbf, status, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let name_at = code_at + code.len();
    let name: Vec<u8> = interpreter.map_or(Vec::new(), |name| [name.as_bytes(), b"\0"].concat());
    let size = (name_at + name.len()) as u64;

    let mut image = Vec::new();
    image.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    image.extend([2u16.to_le_bytes(), 62u16.to_le_bytes()].concat());
    image.extend(1u32.to_le_bytes());
    for word in [base + code_at as u64, HEADER as u64, 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend(0u32.to_le_bytes());
    for half in [HEADER as u16, PROGRAM_HEADER as u16, headers as u16, 64, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    // The interpreter comes before the segments to load.
    if interpreter.is_some() {
        program_header(&mut image, base, 3, 4, name_at as u64, name.len() as u64, 1);
    }
    // Writable, because Linux 6.1 clears the rest of an interpreter's last page.
    program_header(&mut image, base, 1, 7, 0, size, 0x1000);
    image.extend(code);
    image.extend(name);
    image
}

fn program_header(image: &mut Vec<u8>, base: u64, kind: u32, flags: u32, offset: u64, size: u64, align: u64) {
    image.extend(kind.to_le_bytes());
    image.extend(flags.to_le_bytes());
    for word in [offset, base + offset, base + offset, size, size, align] {
        image.extend(word.to_le_bytes());
    }
}
