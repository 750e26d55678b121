// An object written down as what distinguishes it from a fresh one of its type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/bytes.h"

namespace ustack {

/// Writes down where the `bytes` (a multiple of 8, at most 64 KiB) at `object` differ from those at `fresh`,
/// a newly made object of the same type, word by word:
///
///     first and last byte that differ, 3 bits each; words before it that are the same, 2 bits (3: a byte
///     says) | the bytes between both, XORed, or, where the last is before the first, what the word points to
///     in the object, 2 bytes
///
/// A word that points into the object points to the same place of the copy. So does one that only looks like
/// it, padding with what was on the stack before, of which nobody reads. Returns how many bytes of `out` were
/// used; 0: they were too few.
///
/// What is read back by read_sparse() is the object again, bit for bit, where the type can be moved as bytes
/// but for such pointers: it is in no list, and what it owns passes to the copy.
size_t write_sparse(const void* object, const void* fresh, size_t bytes, MutableBytes out);
/// Turns the fresh object at `object` into the one that was written down as `in`.
void read_sparse(Bytes in, void* object);

}  // namespace ustack
