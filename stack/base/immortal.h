#pragma once

namespace ustack {

/// A static variable that is never destroyed: what threads and handlers may still use while exit() runs
/// destructors, and what needn't register one in every program that is started.
template <typename T>
union Immortal {
  constexpr Immortal() : value() {}
  constexpr ~Immortal() {}
  constexpr T* operator->() { return &value; }
  constexpr T& operator*() { return value; }

  T value;
};

}  // namespace ustack
