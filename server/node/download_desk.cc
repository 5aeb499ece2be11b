#include "conclave/server/node/download_desk.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "conclave/base/check.h"

namespace conclave::node {

void DownloadDesk::Open(CallId call, StreamKind kind, CredentialsRef credentials) {
  const uint64_t id = ++last_id_;
  ids_[call] = id;
  Download& download = downloads_[id];
  download.call = call;
  download.kind = kind;
  download.credentials = std::move(credentials);
}

bool DownloadDesk::Close(CallId call) {
  const auto found = ids_.find(call);
  if (found == ids_.end()) return false;
  const auto download = downloads_.find(found->second);
  if (download->second.task != nullptr) --running_;
  downloads_.erase(download);
  ids_.erase(found);
  return true;
}

DownloadDesk::Request DownloadDesk::TakeRequest(CallId call) {
  Download& download = Find(call);
  return {download.kind, download.credentials, !std::exchange(download.asked, true)};
}

bool DownloadDesk::Start(CallId call, std::unique_ptr<apply::StreamTask> task) {
  if (running_ >= kRunningMax) return false;
  Download& download = Find(call);
  CONCLAVE_CHECK(download.task == nullptr, "a download begins once");
  download.task = std::move(task);
  ++running_;
  return true;
}

void DownloadDesk::Sent(CallId call, uint64_t bytes) {
  if (!Contains(call)) return;
  Download& download = Find(call);
  download.unsent_bytes -= std::min(bytes, download.unsent_bytes);
}

bool DownloadDesk::RunOne(Download& download, size_t budget, bool* ended, Effects* effects) {
  const uint64_t turn_end = download.unsent_bytes + kBytesPerTurn / running_;
  while (download.unsent_bytes < unsent_bytes_max_) {
    if (download.unsent_bytes > turn_end) return true;
    switch (download.task->Run(&budget)) {
      case apply::StreamTask::Step::kMore:
        return true;
      case apply::StreamTask::Step::kEnd:
        *ended = true;
        return false;
      case apply::StreamTask::Step::kMessage: {
        apply::StreamTask::Message message = download.task->TakeMessage();
        StreamEffect& effect = effects->streams.emplace_back();
        effect.id = download.call;
        effect.charge = static_cast<uint32_t>(message.size());
        effect.prefix = std::move(message.prefix);
        effect.shared = std::move(message.rest);
        download.unsent_bytes += effect.charge;
        break;
      }
    }
  }
  return false;
}

bool DownloadDesk::Work(size_t budget, Effects* effects) {
  if (running_ == 0) return false;
  const size_t share = std::max<size_t>(budget / running_, 1);
  bool more = false;
  std::vector<CallId> ended;
  for (auto& [id, download] : downloads_) {
    if (download.task == nullptr) continue;
    bool end = false;
    more |= RunOne(download, share, &end, effects);
    if (end) ended.push_back(download.call);
  }
  for (const CallId call : ended) {
    Close(call);
    StreamEffect& effect = effects->streams.emplace_back();
    effect.id = call;
    effect.finish = true;
  }
  return more;
}

void DownloadDesk::End(bool only_running, const wire::Error& error, Effects* effects) {
  std::vector<CallId> ending;
  for (const auto& [id, download] : downloads_) {
    if (!only_running || download.task != nullptr) ending.push_back(download.call);
  }
  for (const CallId call : ending) {
    Close(call);
    StreamEffect& effect = effects->streams.emplace_back();
    effect.id = call;
    effect.finish = true;
    effect.error = std::make_unique<CallError>(
        CallError{static_cast<int>(error.code), std::string(error.message)});
  }
}

void DownloadDesk::EndAll(const wire::Error& error, Effects* effects) {
  End(/*only_running=*/false, error, effects);
}

void DownloadDesk::EndRunning(const wire::Error& error, Effects* effects) {
  End(/*only_running=*/true, error, effects);
}

}  // namespace conclave::node
