// What is remembered about other hosts: a table from address to entry that strangers can neither steer nor
// fill.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "stack/base/intrusive_list.h"
#include "stack/base/siphash.h"
#include "stack/mem/arena.h"
#include "stack/net/address.h"

namespace ustack {

/// Base of an AddressTable's entries.
class AddressTableEntry : public ListHook<AddressTableEntry> {
 public:
  explicit AddressTableEntry(const IpAddress& address) : address_(address) {}
  const IpAddress& address() const { return address_; }

 private:
  template <typename T>
  friend class AddressTable;
  IpAddress address_;
  AddressTableEntry* chain_ = nullptr;  // next in its bucket
};

/// A hash table keyed by address of either family, and its entries in the order of their last use. The hash
/// is keyed, so that nobody can choose addresses that collide. Its owner bounds it: size(), oldest(),
/// erase(). Entries live in the arena. Lock: the host's.
template <typename T>
class AddressTable {
 public:
  AddressTable(Arena& arena, RandomSource& random) : arena_(arena), key_(SipKey::random(random)) {}
  AddressTable(const AddressTable&) = delete;
  AddressTable& operator=(const AddressTable&) = delete;
  ~AddressTable() {
    while (T* entry = oldest()) erase(*entry);
    arena_.release(buckets_, bucket_count_ * sizeof(Bucket));
  }

  /// nullptr when there is none. Doesn't count as use.
  T* find(const IpAddress& address) const {
    if (size_ == 0) return nullptr;
    AddressTableEntry* entry = bucket(address).first;
    while (entry != nullptr && !(entry->address_ == address)) entry = entry->chain_;
    return static_cast<T*>(entry);
  }
  /// A new T(address, args...), of which there must be none yet; nullptr when memory is out.
  template <typename... Args>
  T* insert(const IpAddress& address, Args&&... args) {
    grow();
    if (buckets_ == nullptr) return nullptr;
    T* entry = arena_.create<T>(address, std::forward<Args>(args)...);
    if (entry == nullptr) return nullptr;
    push(bucket(address), *entry);
    by_use_.push_back(*entry);
    ++size_;
    return entry;
  }
  /// Marks it as the most recently used.
  void touch(T& entry) {
    if (by_use_.back() == &entry) return;
    by_use_.remove(entry);
    by_use_.push_back(entry);
  }
  void erase(T& entry) {
    by_use_.remove(entry);  // first: what is in that list is in the table (mend())
    AddressTableEntry** at = &bucket(entry.address()).first;
    while (*at != &entry) at = &(*at)->chain_;
    *at = static_cast<AddressTableEntry&>(entry).chain_;
    --size_;
    arena_.destroy(&entry);
  }
  uint32_t size() const { return size_; }
  /// After a process was killed while it changed the host: the chains anew, of what is in the list of uses.
  void mend() {
    for (uint32_t i = 0; i < bucket_count_; ++i) buckets_[i] = Bucket();
    size_ = 0;
    for (T& entry : by_use_) {
      push(bucket(entry.address()), entry);
      ++size_;
    }
  }
  /// The least recently used; nullptr when empty.
  T* oldest() { return by_use_.front(); }
  /// The one used next after `entry`, nullptr at the end.
  T* newer(T& entry) { return by_use_.next(entry); }

 private:
  struct Bucket {
    AddressTableEntry* first = nullptr;
  };
  static constexpr uint32_t kFirstBuckets = 16;

  Bucket& bucket(const IpAddress& address) const {
    return buckets_[siphash(key_, Bytes(address.data(), address.size())) & (bucket_count_ - 1)];
  }
  static void push(Bucket& bucket, AddressTableEntry& entry) {
    entry.chain_ = bucket.first;
    bucket.first = &entry;
  }
  /// Keeps a bucket for each entry; without memory chains get longer instead.
  void grow() {
    if (size_ < bucket_count_) return;
    uint32_t count = std::max(kFirstBuckets, bucket_count_ * 2);
    auto* fresh = static_cast<Bucket*>(arena_.allocate(count * sizeof(Bucket), alignof(Bucket)));
    if (fresh == nullptr) return;
    std::uninitialized_fill_n(fresh, count, Bucket());
    Bucket* before = std::exchange(buckets_, fresh);
    uint32_t count_before = std::exchange(bucket_count_, count);
    for (T& entry : by_use_) push(bucket(entry.address()), entry);
    arena_.release(before, count_before * sizeof(Bucket));
  }

  Arena& arena_;
  SipKey key_;
  IntrusiveList<T, AddressTableEntry> by_use_;
  Bucket* buckets_ = nullptr;
  uint32_t bucket_count_ = 0;
  uint32_t size_ = 0;
};

}  // namespace ustack
