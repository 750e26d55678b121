#include "shim/twins.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "io/syscalls.h"
#include "shim/fd_table.h"
#include "stack/base/immortal.h"

namespace ustack::shim::twins {

namespace {

/// `file` is set after the twin and cleared before that is closed: what a child of fork finds is open.
struct Entry {
  bool stands_for(const OpenFile* what) const { return file.load(std::memory_order_relaxed) == what; }

  std::atomic<const OpenFile*> file{nullptr};
  Twin twin;
};

constinit Immortal<std::array<Entry, kMost>> list;
/// No place from here on was ever used.
std::atomic<size_t> used{0};
/// Which listener is asked first.
bool second_first;

template <typename Matches>
Entry* find(Matches&& matches) {
  auto* end = list->begin() + used.load(std::memory_order_relaxed);
  auto* found = std::find_if(list->begin(), end, matches);
  return found != end ? found : nullptr;
}

Entry* find_file(const OpenFile* file) {
  return find([file](const Entry& entry) { return entry.stands_for(file); });
}

void close_one(Entry& entry) {
  entry.file.store(nullptr, std::memory_order_seq_cst);
  Twin closing = std::move(entry.twin);
}

/// listen(2) or shutdown(2).
void call_each(long system_call, const Twin& twin, int argument) {
  for (const io::Descriptor& listener : twin.listeners)
    if (listener) io::sys::call(system_call, listener.get(), argument);
}

}  // namespace

bool add(const OpenFile& file, Twin& twin) {
  Entry* place = find_file(nullptr);
  if (place == nullptr) {
    size_t next = used.load(std::memory_order_relaxed);
    if (next == kMost) return false;
    place = &(*list)[next];
    used.store(next + 1, std::memory_order_relaxed);
  }
  place->twin = std::move(twin);
  place->file.store(&file, std::memory_order_release);
  return true;
}

int of(const OpenFile& file) {
  const Entry* entry = find_file(&file);
  return entry != nullptr ? entry->twin.watched() : -1;
}

Result<int> accept(const OpenFile& file, int flags) {
  const Entry* entry = find_file(&file);
  if (entry == nullptr) return Error{EAGAIN};
  second_first = !second_first;
  for (bool second : {second_first, !second_first}) {
    const io::Descriptor& listener = entry->twin.listeners[second];
    if (!listener) continue;
    const long fd = io::sys::call(SYS_accept4, listener.get(), 0, 0, flags);
    if (fd >= 0) return static_cast<int>(fd);
    if (fd != -EAGAIN) return Error{static_cast<int>(-fd)};
  }
  return Error{EAGAIN};
}

void set_backlog(const OpenFile& file, int backlog) {
  if (const Entry* entry = find_file(&file)) call_each(SYS_listen, entry->twin, backlog);
}

void end(const OpenFile& file) {
  Entry* entry = find_file(&file);
  if (entry == nullptr) return;
  call_each(SYS_shutdown, entry->twin, SHUT_RD);
  close_one(*entry);
}

void close(const OpenFile& file) {
  if (Entry* entry = find_file(&file)) close_one(*entry);
}

bool has(int fd) {
  return find([fd](const Entry& entry) { return !entry.stands_for(nullptr) && entry.twin.has(fd); }) !=
         nullptr;
}

void keep_those_of(FdTable* table) {
  for (size_t i = 0; i < used.load(std::memory_order_relaxed); ++i) {
    Entry& entry = (*list)[i];
    const OpenFile* file = entry.file.load(std::memory_order_relaxed);
    if (file != nullptr && (table == nullptr || !table->refers_to(*file))) close_one(entry);
  }
}

void forget_all() { used.store(0, std::memory_order_relaxed); }

}  // namespace ustack::shim::twins
