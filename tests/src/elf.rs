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

/// What a 32-bit program asks of the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// To open a file for reading.
    Open(&'a str),
    /// To become another program, without arguments.
    Execute(&'a str),
    /// To connect a TCP socket to an IPv4 address (`struct sockaddr_in`).
    Connect([u8; 16]),
}

/// A static i386 program that makes one call, and exits with 0 or the error number that it met.
pub fn i386(call: Call<'_>) -> Vec<u8> {
    const HEADER_32: usize = 52;
    const PROGRAM_HEADER_32: usize = 32;
    let code_at = HEADER_32 + PROGRAM_HEADER_32;
    let data: Vec<u8> = match call {
        Call::Open(path) | Call::Execute(path) => [path.as_bytes(), b"\0"].concat(),
        Call::Connect(address) => address.to_vec(),
    };
    let code = |data_at: u32| {
        let mut code = match call {
            // mov eax, 5 (open); xor ecx, ecx
            Call::Open(_) => vec![0xb8, 5, 0, 0, 0, 0x31, 0xc9],
            // mov eax, 11 (execve); xor ecx, ecx; xor edx, edx
            Call::Execute(_) => vec![0xb8, 11, 0, 0, 0, 0x31, 0xc9, 0x31, 0xd2],
            // mov eax, 359 (socket); mov ebx, 2 (AF_INET); mov ecx, 1 (SOCK_STREAM); xor edx, edx;
            // int 0x80; mov edi, eax; mov eax, 362 (connect); mov edx, 16
            Call::Connect(_) => [
                &[0xb8, 0x67, 1, 0, 0, 0xbb, 2, 0, 0, 0, 0xb9, 1, 0, 0, 0, 0x31, 0xd2, 0xcd, 0x80][..],
                &[0x89, 0xc7, 0xb8, 0x6a, 1, 0, 0, 0xba, 16, 0, 0, 0],
            ]
            .concat(),
        };
        match call {
            Call::Open(_) | Call::Execute(_) => {
                // mov ebx, data
                code.push(0xbb);
                code.extend(data_at.to_le_bytes());
            }
            Call::Connect(_) => {
                // mov ebx, edi; mov ecx, data
                code.extend([0x89, 0xfb, 0xb9]);
                code.extend(data_at.to_le_bytes());
            }
        }
        // int 0x80; xor ebx, ebx; test eax, eax; jns +4; neg eax; mov ebx, eax; mov eax, 1 (exit); int 0x80
        code.extend([0xcd, 0x80, 0x31, 0xdb, 0x85, 0xc0, 0x79, 4, 0xf7, 0xd8, 0x89, 0xc3]);
        code.extend([0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
        code
    };
    let base = PROGRAM_BASE as u32;
    let data_at = code_at + code(0).len();
    let size = (data_at + data.len()) as u32;

    let mut image = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    image.extend([2u16.to_le_bytes(), 3u16.to_le_bytes()].concat());
    for word in [1, base + code_at as u32, HEADER_32 as u32, 0, 0] {
        image.extend(word.to_le_bytes());
    }
    for half in [HEADER_32 as u16, PROGRAM_HEADER_32 as u16, 1, 40, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    // One segment over the whole file, to read and execute.
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.extend(code(base + data_at as u32));
    image.extend(data);
    image
}

fn program_header(image: &mut Vec<u8>, base: u64, kind: u32, flags: u32, offset: u64, size: u64, align: u64) {
    image.extend(kind.to_le_bytes());
    image.extend(flags.to_le_bytes());
    for word in [offset, base + offset, base + offset, size, size, align] {
        image.extend(word.to_le_bytes());
    }
}
