// Waves of a window of cycles, in a library that Verilator built with --trace-fst; elsewhere nothing.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>

#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif

class dlavm_rtl_waves {
  public:
    static void prepare(VerilatedContext& context) {
#if VM_TRACE_FST
        context.traceEverOn(true);  // before the top is made
        context.timeunit(-9);
        context.timeprecision(-9);
#else
        (void)context;
#endif
    }

    // As dlavm_rtl_trace.
    template <class Top>
    int open(Top& top, const char* path, uint64_t begin, uint64_t end) {
#if VM_TRACE_FST
        // Verilator's writer does not say whether it could open its file.
        std::FILE* file = std::fopen(path, "wb");
        if (file == nullptr || file_ != nullptr) return 2;
        std::fclose(file);
        file_ = std::make_unique<VerilatedFstC>();
        top.trace(file_.get(), 99);
        file_->open(path);
        begin_ = begin;
        end_ = end;
        return 0;
#else
        (void)top, (void)path, (void)begin, (void)end;
        return 1;
#endif
    }

    // After the edge of the clock in a cycle.
    void edge(uint64_t cycle, bool rising) {
#if VM_TRACE_FST
        now_ = 10 * cycle + (rising ? 0 : 5);
        if (file_ == nullptr || cycle < begin_) return;
        if (cycle >= end_)
            close();
        else
            dump();
#else
        (void)cycle, (void)rising;
#endif
    }

    // The file is complete after this. Where the window has not come it has the state of now: the writer
    // makes no file of nothing.
    void close() {
#if VM_TRACE_FST
        if (file_ == nullptr || !file_->isOpen()) return;
        if (!dumped_) dump();
        file_->close();
#endif
    }

  private:
#if VM_TRACE_FST
    void dump() {
        file_->dump(now_);
        dumped_ = true;
    }

    std::unique_ptr<VerilatedFstC> file_;
    uint64_t begin_ = 0, end_ = 0, now_ = 0;
    bool dumped_ = false;
#endif
};
