#include "shim/fd_table.h"

#include <fcntl.h>

#include <cerrno>
#include <mutex>

#include "io/syscalls.h"
#include "shim/driver.h"
#include "shim/file_step.h"
#include "shim/host_lock.h"
#include "shim/process.h"
#include "shim/scope.h"
#include "shim/twins.h"

namespace ustack::shim {

constinit FdTable::Chunk FdTable::empty_{};

FdTable::FdTable(Arena& arena) : arena_(arena) {
  for (auto& chunk : chunks_) chunk.store(&empty_, std::memory_order_relaxed);
}

FdTable* FdTable::create(Arena& arena) { return arena.create<FdTable>(arena); }

FdTable* FdTable::copy() {
  FdTable* table = create(arena_);
  if (table == nullptr) return nullptr;
  for (int fd = next(0); fd >= 0; fd = next(fd + 1)) {
    if (table->share(fd, look_in(fd)).ok()) continue;
    destroy(table);
    return nullptr;
  }
  return table;
}

void FdTable::destroy(FdTable* table) {
  if (table == nullptr) return;
  for (int fd = table->next(0); fd >= 0; fd = table->next(fd + 1)) table->clear(fd);
  for (auto& chunk : table->chunks_)
    if (Chunk* made = chunk.load(std::memory_order_relaxed); made != &empty_) table->arena_.destroy(made);
  Arena& arena = table->arena_;
  arena.destroy(table);
}

OpenFile* FdTable::look_in(int fd) const {
  auto number = static_cast<unsigned>(fd);
  return chunks_[number / kChunk]
      .load(std::memory_order_relaxed)
      ->entries[number % kChunk]
      .load(std::memory_order_relaxed);
}

std::atomic<OpenFile*>* FdTable::entry(int fd) {
  auto number = static_cast<unsigned>(fd);
  std::atomic<Chunk*>& place = chunks_[number / kChunk];
  Chunk* chunk = place.load(std::memory_order_relaxed);
  if (chunk == &empty_) {
    chunk = arena_.create<Chunk>();
    if (chunk == nullptr) return nullptr;
    place.store(chunk, std::memory_order_release);
  }
  return &chunk->entries[number % kChunk];
}

void FdTable::mark(int fd, bool ours) const {
  auto number = static_cast<unsigned>(fd);
  if (this != current_ || number >= kNear) return;
  uint64_t bit = uint64_t{1} << number % 64;
  if (ours)
    near_[number / 64].fetch_or(bit, std::memory_order_release);
  else
    near_[number / 64].fetch_and(~bit, std::memory_order_release);
}

void FdTable::set_current(FdTable* table) {
  current_ = table;
  for (auto& word : near_) word.store(0, std::memory_order_relaxed);
  if (table == nullptr) return;
  for (int fd = table->next(0); fd >= 0 && static_cast<unsigned>(fd) < kNear; fd = table->next(fd + 1))
    table->mark(fd, true);
}

void FdTable::inherit(FdTable* copy) {
  if (copy == nullptr) return set_current(nullptr);
  current_ = copy;
}

Status FdTable::set(int fd, OpenFile* file) {
  if (fd < 0 || fd >= kLimit) return Error{EMFILE};
  std::atomic<OpenFile*>* at = entry(fd);
  if (at == nullptr) return Error{ENOMEM};
  mark(fd, true);
  FileStep::at(file, at);
  OpenFile* before = at->exchange(file, std::memory_order_acq_rel);
  FileStep::end();
  if (before == nullptr) return {};
  let_go(*before);
  before->release();
  return {};
}

Status FdTable::share(int fd, OpenFile* file) {
  FileStep::begin(file, file->references(), nullptr);
  file->reference();
  Status status = set(fd, file);
  if (!status.ok()) file->release();
  return status;
}

bool FdTable::clear(int fd) {
  if (fd < 0 || fd >= kLimit || look_in(fd) == nullptr) return false;
  OpenFile* before;
  bool last;
  {
    CommonLock common;
    std::atomic<OpenFile*>* at = entry(fd);
    before = at->load(std::memory_order_relaxed);
    FileStep::begin(before, before->references() - 1, at);
    at->store(nullptr, std::memory_order_release);
    mark(fd, false);
    let_go(*before);
    last = before->release_leaving_close();
    // From here on its count of none tells what is to be done.
    if (!last || has_shards) FileStep::end();
  }
  if (last) before->close_for_good();
  return true;
}

void FdTable::let_go(OpenFile& file) {
  if (this == current_ && twins::of(file) >= 0 && !refers_to(file)) twins::close(file);
}

Result<int> FdTable::install(OpenFile* file, bool cloexec, int lowest) {
  std::lock_guard held(lock_);
  return install_locked(file, cloexec, lowest);
}

Result<int> FdTable::install_locked(OpenFile* file, bool cloexec, int lowest) {
  CommonLock common;
  long fd = io::sys::fcntl(Process::placeholder(), cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, lowest);
  if (fd < 0) return Error{static_cast<int>(-fd)};
  if (Status status = set(static_cast<int>(fd), file); !status.ok()) {
    io::sys::close(static_cast<int>(fd));
    return status.error();
  }
  return static_cast<int>(fd);
}

Result<int> FdTable::duplicate(int fd, bool cloexec, int lowest) {
  OpenFile* file = look(fd);
  if (file == nullptr) return Error{EBADF};
  std::lock_guard held(lock_);
  long made = io::sys::fcntl(fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, lowest);
  if (made < 0) return Error{static_cast<int>(-made)};
  if (Status status = share(static_cast<int>(made), file); !status.ok()) {
    io::sys::close(static_cast<int>(made));
    return status.error();
  }
  return static_cast<int>(made);
}

void FdTable::put_below(int fd, int kernel) {
  long flags = io::sys::fcntl(fd, F_GETFD);
  io::sys::call(SYS_dup3, kernel, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
}

int FdTable::next(int fd) const {
  for (auto number = static_cast<unsigned>(fd); number < static_cast<unsigned>(kLimit);) {
    const Chunk* chunk = chunks_[number / kChunk].load(std::memory_order_relaxed);
    if (chunk == &empty_) {
      number = (number / kChunk + 1) * kChunk;
      continue;
    }
    if (chunk->entries[number % kChunk].load(std::memory_order_relaxed) != nullptr)
      return static_cast<int>(number);
    ++number;
  }
  return -1;
}

bool FdTable::refers_to(const OpenFile& file) const {
  for (int fd = next(0); fd >= 0; fd = next(fd + 1))
    if (look_in(fd) == &file) return true;
  return false;
}

void FdTable::forget(int fd) {
  if (Scope::inside()) return;
  Scope scope;
  HostLock lock;
  if (current_ != nullptr) current_->clear(fd);
}

}  // namespace ustack::shim
