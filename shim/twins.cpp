#include "shim/twins.h"

#include <array>
#include <atomic>

#include "io/descriptor.h"
#include "shim/fd_table.h"

namespace ustack::shim::twins {

namespace {

/// `file` is set after `fd` and cleared before it is closed: what a child of fork finds is open.
struct Twin {
  std::atomic<const OpenFile*> file{nullptr};
  int fd = -1;
};

std::array<Twin, kMost> list;
/// No place from here on was ever used.
std::atomic<size_t> used{0};

template <typename Matches>
Twin* find(Matches&& matches) {
  for (size_t i = 0; i < used.load(std::memory_order_relaxed); ++i)
    if (matches(list[i])) return &list[i];
  return nullptr;
}

Twin* find_file(const OpenFile* file) {
  return find([file](const Twin& twin) { return twin.file.load(std::memory_order_relaxed) == file; });
}

void close_one(Twin& twin) {
  io::Descriptor closing(twin.fd);
  twin.file.store(nullptr, std::memory_order_seq_cst);
}

}  // namespace

bool add(const OpenFile& file, int fd) {
  Twin* place = find_file(nullptr);
  if (place == nullptr) {
    size_t next = used.load(std::memory_order_relaxed);
    if (next == kMost) return false;
    place = &list[next];
    used.store(next + 1, std::memory_order_relaxed);
  }
  place->fd = fd;
  place->file.store(&file, std::memory_order_release);
  return true;
}

int of(const OpenFile& file) {
  const Twin* twin = find_file(&file);
  return twin != nullptr ? twin->fd : -1;
}

void close(const OpenFile& file) {
  if (Twin* twin = find_file(&file)) close_one(*twin);
}

bool is_one(int fd) {
  return find([fd](const Twin& twin) {
           return twin.file.load(std::memory_order_relaxed) != nullptr && twin.fd == fd;
         }) != nullptr;
}

void keep_those_of(FdTable* table) {
  for (size_t i = 0; i < used.load(std::memory_order_relaxed); ++i) {
    const OpenFile* file = list[i].file.load(std::memory_order_relaxed);
    if (file != nullptr && (table == nullptr || !table->refers_to(*file))) close_one(list[i]);
  }
}

void forget_all() { used.store(0, std::memory_order_relaxed); }

}  // namespace ustack::shim::twins
