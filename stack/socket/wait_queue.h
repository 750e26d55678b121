// Who wants to know when a socket becomes ready.
#pragma once

#include <cstdint>

#include "stack/base/intrusive_list.h"

namespace ustack {

/// Readiness bits with the values of poll(2) and epoll(7).
namespace ready {
inline constexpr uint32_t kIn = 0x001, kPri = 0x002, kOut = 0x004, kErr = 0x008, kHup = 0x010,
                          kRdNorm = 0x040, kRdBand = 0x080, kWrNorm = 0x100, kWrBand = 0x200, kRdHup = 0x2000;
}  // namespace ready

/// One party waiting on one object: a thread in recv(), an epoll registration. Embedded in what waits;
/// unlinks itself when destroyed.
class WaitEntry : public ListHook<> {
 public:
  /// Called under the host's lock, must not block or change the queue other than by unlinking itself.
  /// `events` is what has just become true. Returns whether somebody was woken (for exclusive entries).
  using Notify = bool (*)(WaitEntry& entry, uint32_t events);

  WaitEntry(Notify notify, void* context) : notify_(notify), context_(context) {}
  void* context() const { return context_; }

  /// Events of interest; kErr and kHup are always reported.
  uint32_t interest = 0;
  /// At most one exclusive entry is woken by an event (EPOLLEXCLUSIVE, blocked accepts).
  bool exclusive = false;

 private:
  friend class WaitQueue;
  Notify notify_;
  void* context_;
};

/// The waiters of one object. Lock: the host's.
class WaitQueue {
 public:
  void add(WaitEntry& entry) {
    if (entry.exclusive)
      entries_.push_back(entry);
    else
      entries_.push_front(entry);
  }
  /// Tells everyone interested in `events`, and the first exclusive entry that says it woke somebody.
  void notify(uint32_t events) {
    WaitEntry* next;
    for (WaitEntry* entry = entries_.front(); entry != nullptr; entry = next) {
      next = entries_.next(*entry);
      if (((entry->interest | ready::kErr | ready::kHup) & events) == 0) continue;
      bool exclusive = entry->exclusive;
      if (entry->notify_(*entry, events) && exclusive) return;
    }
  }
  /// Tells all who are interested, exclusive ones too: it is over for all of them.
  void notify_all(uint32_t events) {
    WaitEntry* next;
    for (WaitEntry* entry = entries_.front(); entry != nullptr; entry = next) {
      next = entries_.next(*entry);
      if (((entry->interest | ready::kErr | ready::kHup) & events) != 0) entry->notify_(*entry, events);
    }
  }
  /// The entry that was made with this function and context; nullptr: none. Looks at all entries.
  WaitEntry* find(WaitEntry::Notify function, const void* context) {
    for (WaitEntry& entry : entries_)
      if (entry.notify_ == function && entry.context_ == context) return &entry;
    return nullptr;
  }
  bool empty() const { return entries_.empty(); }
  /// All that wait on `other` wait on this one.
  void take_over(WaitQueue& other) { entries_.splice_back(other.entries_); }
  /// An entry other than `own` is interested in some of `events`. Looks at all entries.
  bool awaited(uint32_t events, const WaitEntry& own) {
    for (WaitEntry& entry : entries_)
      if (&entry != &own && (entry.interest & events) != 0) return true;
    return false;
  }

 private:
  IntrusiveList<WaitEntry> entries_;
};

}  // namespace ustack
