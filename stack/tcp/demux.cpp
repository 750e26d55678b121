#include "stack/tcp/demux.h"

#include <array>
#include <cstring>
#include <utility>

namespace ustack::tcp {

ConnectionTable::~ConnectionTable() {
  if (buckets_ != nullptr) arena_.release(buckets_, bucket_count_ * sizeof(Connection*));
}

uint32_t ConnectionTable::hash(const ConnectionId& id) const {
  if (id.local.address.is_v4()) {
    std::array<std::byte, 12> key;
    std::memcpy(key.data(), id.local.address.data(), 4);
    std::memcpy(key.data() + 4, id.remote.address.data(), 4);
    store_be16(key.data() + 8, id.local.port);
    store_be16(key.data() + 10, id.remote.port);
    return static_cast<uint32_t>(siphash(key_, key));
  }
  std::array<std::byte, 36> key;
  std::byte* p = key.data();
  std::memcpy(p, id.local.address.data(), 16);
  std::memcpy(p + 16, id.remote.address.data(), 16);
  store_be16(p + 32, id.local.port);
  store_be16(p + 34, id.remote.port);
  return static_cast<uint32_t>(siphash(key_, key));
}

Connection* ConnectionTable::find(const ConnectionId& id) const {
  if (size_ == 0) return nullptr;
  uint32_t hashed = hash(id);
  for (Connection* c = buckets_[hashed & (bucket_count_ - 1)]; c != nullptr; c = c->next_)
    if (c->hash_ == hashed && c->id_ == id) return c;
  return nullptr;
}

Status ConnectionTable::insert(Connection& connection, const ConnectionId& id) {
  if (find(id) != nullptr) return Error{EADDRNOTAVAIL};
  // A full table that can't grow only gets slower.
  if (size_ >= bucket_count_ && !grow() && bucket_count_ == 0) return Error{ENOBUFS};
  connection.id_ = id;
  connection.hash_ = hash(id);
  Connection*& bucket = buckets_[connection.hash_ & (bucket_count_ - 1)];
  connection.next_ = bucket;
  bucket = &connection;
  connection.in_table_ = true;
  ++size_;
  return {};
}

void ConnectionTable::remove(Connection& connection) {
  if (!connection.in_table_) return;
  Connection** link = &buckets_[connection.hash_ & (bucket_count_ - 1)];
  while (*link != &connection) link = &(*link)->next_;
  *link = connection.next_;
  connection.next_ = nullptr;
  connection.in_table_ = false;
  --size_;
}

void ConnectionTable::mend() {
  for (uint32_t i = 0; i < bucket_count_; ++i) buckets_[i] = nullptr;
  size_ = 0;
}

void ConnectionTable::mend(Connection& connection) {
  if (!connection.in_table_) return;
  Connection*& bucket = buckets_[connection.hash_ & (bucket_count_ - 1)];
  connection.next_ = bucket;
  bucket = &connection;
  ++size_;
}

bool ConnectionTable::grow() {
  uint32_t count = bucket_count_ == 0 ? kFirstBuckets : bucket_count_ * 2;
  auto** buckets =
      static_cast<Connection**>(arena_.allocate(count * sizeof(Connection*), alignof(Connection*)));
  if (buckets == nullptr) return false;
  for (uint32_t i = 0; i < count; ++i) buckets[i] = nullptr;
  for (uint32_t i = 0; i < bucket_count_; ++i) {
    while (Connection* c = buckets_[i]) {
      buckets_[i] = c->next_;
      Connection*& bucket = buckets[c->hash_ & (count - 1)];
      c->next_ = bucket;
      bucket = c;
    }
  }
  Connection** before = std::exchange(buckets_, buckets);
  uint32_t count_before = std::exchange(bucket_count_, count);
  if (before != nullptr) arena_.release(before, count_before * sizeof(Connection*));
  return true;
}

PortTable::~PortTable() {
  for (Page* page : pages_) arena_.destroy(page);
}

PortBucket* PortTable::make(uint16_t port) {
  Page*& page = pages_[port / kOfPage];
  if (page == nullptr) page = arena_.create<Page>();
  if (page == nullptr) return nullptr;
  PortBucket* bucket = buckets_.create();
  if (bucket == nullptr) return nullptr;
  bucket->port = port;
  (*page)[port % kOfPage] = bucket;
  return bucket;
}

void PortTable::end(PortBucket& bucket) {
  (*pages_[bucket.port / kOfPage])[bucket.port % kOfPage] = nullptr;
  buckets_.destroy(&bucket);
}

bool PortTable::conflicts(const PortHolder& holder, const IpAddress& address, uint16_t port) const {
  PortBucket* bucket = find(port);
  if (bucket == nullptr) return false;
  for (PortHolder& other : bucket->holders) {
    if (&other == &holder || !addresses_overlap(address, holder.v6_only, other.address_, other.v6_only))
      continue;
    if (holder.reuse_address && other.reuse_address && !other.listening) continue;
    if (holder.reuse_port && other.reuse_port) continue;
    return true;
  }
  return false;
}

bool PortTable::free_for_connect(uint16_t port) const {
  PortBucket* bucket = find(port);
  return bucket == nullptr || bucket->exclusive == 0;
}

Status PortTable::claim(PortHolder& holder, const IpAddress& address, uint16_t port) {
  release(holder);
  PortBucket* bucket = find(port);
  if (bucket == nullptr) bucket = make(port);
  if (bucket == nullptr) return Error{ENOBUFS};
  holder.bucket_ = bucket;
  holder.address_ = address;
  bucket->holders.push_back(holder);
  if (!holder.by_connect) ++bucket->exclusive;
  return {};
}

void PortTable::mend() {
  // One without holders may not have got to its place, or have left it.
  for (Page* page : pages_)
    if (page != nullptr) *page = {};
  buckets_.mend();
  buckets_.for_each([this](PortBucket& bucket) {
    if (bucket.holders.empty()) return buckets_.destroy(&bucket);
    bucket.exclusive = 0;
    for (PortHolder& holder : bucket.holders) bucket.exclusive += holder.by_connect ? 0 : 1;
    (*pages_[bucket.port / kOfPage])[bucket.port % kOfPage] = &bucket;
  });
}

void PortTable::release(PortHolder& holder) {
  PortBucket* bucket = holder.bucket_;
  if (bucket == nullptr) return;
  bucket->holders.remove(holder);
  holder.bucket_ = nullptr;
  if (!holder.by_connect) --bucket->exclusive;
  if (bucket->holders.empty()) end(*bucket);
}

}  // namespace ustack::tcp
