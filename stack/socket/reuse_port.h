// SO_REUSEPORT: which of several sockets that fit equally well gets what has come.
#pragma once

#include <cstdint>

namespace ustack {

/// One of n, each with the same probability, decided by a hash of the sender alone.
class ReusePortChoice {
 public:
  /// One more fits as well as those before: whether it takes their place. `hash()` is asked the first time.
  template <typename Hash>
  bool takes_next(Hash&& hash) {
    if (equals_ == 1) hash_ = hash();
    ++equals_;
    const bool takes = hash_ % equals_ == 0;
    hash_ = hash_ / equals_ * 2654435761u;
    return takes;
  }

 private:
  uint32_t equals_ = 1;
  uint32_t hash_ = 0;
};

}  // namespace ustack
