#include "io/own_descriptors.h"

#include <atomic>
#include <climits>

namespace ustack::io {

namespace {

/// Numbers, one more than each, so that the array begins as zeros: 0 is a free place.
std::atomic<int> own[kMostOwn];
/// No place from here on was ever used.
std::atomic<int> used{0};
/// At most the smallest of them; never raised, since numbers stay in one region.
std::atomic<int> lowest{INT_MAX};

}  // namespace

void add_own_descriptor(int fd) {
  if (fd < 0) return;
  for (int i = 0; i < kMostOwn; ++i) {
    int free = 0;
    if (!own[i].compare_exchange_strong(free, fd + 1)) continue;
    for (int n = used.load(); n <= i && !used.compare_exchange_weak(n, i + 1);) {
    }
    for (int n = lowest.load(); n > fd && !lowest.compare_exchange_weak(n, fd);) {
    }
    return;
  }
}

void remove_own_descriptor(int fd) {
  if (fd < lowest.load(std::memory_order_relaxed)) return;
  for (int i = 0; i < used.load(); ++i) {
    int place = fd + 1;
    if (own[i].compare_exchange_strong(place, 0)) return;
  }
}

bool is_own_descriptor(int fd) {
  if (fd < lowest.load(std::memory_order_relaxed)) return false;
  for (int i = 0; i < used.load(); ++i)
    if (own[i].load(std::memory_order_relaxed) == fd + 1) return true;
  return false;
}

int next_own_descriptor(int fd) {
  int best = INT_MAX;
  for (int i = 0; i < used.load(); ++i) {
    int number = own[i].load(std::memory_order_relaxed) - 1;
    if (number >= fd && number >= 0 && number < best) best = number;
  }
  return best == INT_MAX ? -1 : best;
}

}  // namespace ustack::io
