// An object written down as what distinguishes it from a fresh one of its type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stack/base/bytes.h"

namespace ustack {

/// Writes down where the `bytes` (a multiple of 8) at `object` differ from those at `fresh`, a newly made
/// object of the same type:
///
///     words that are the same (0 to 255) | a bit for each byte of the next that differs | those bytes, XORed
///
/// An object may point into itself, as long as a fresh one does the same at that place. Returns how many
/// bytes of `out` were used; 0: they were too few, or the object points into itself elsewhere.
///
/// What is read back by read_sparse() is the object again, bit for bit, where the type can be moved as bytes
/// but for such pointers: it is in no list, and what it owns passes to the copy.
size_t write_sparse(const void* object, const void* fresh, size_t bytes, MutableBytes out);
/// Turns the fresh object at `object` into the one that was written down as `in`.
void read_sparse(Bytes in, void* object);

}  // namespace ustack
