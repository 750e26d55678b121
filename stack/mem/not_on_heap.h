// For classes with a virtual destructor whose objects live in an Arena.
#pragma once

#include <cstddef>

namespace ustack {

/// A virtual destructor drags the global operator delete into the library, which must not have it. Deriving
/// from this gives it one that nobody may call: arena objects are ended by Arena::destroy or Slab::destroy.
struct NotOnHeap {
  static void operator delete(void*, std::size_t) { __builtin_trap(); }
};

}  // namespace ustack
