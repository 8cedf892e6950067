//! Types and pure logic shared by the kernel programs and user space.
#![no_std]
